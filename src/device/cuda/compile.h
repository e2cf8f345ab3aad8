// Kernels made from text while the program runs: NVRTC's, or what an engine brought.
#pragma once

#include <cuda_runtime.h>

#include <string>

namespace tandem::cuda {

// The kernel `name` of a text; each text is loaded once in a process, from code that was offered (device/code.h), else compiled. Usable on
// every GPU of that kind; never unloaded. Throws Error(unsupported) where there is neither code nor NVRTC, Error(internal) with its
// messages where the text does not compile.
cudaKernel_t compiled_kernel(const std::string& source, const char* name, int sm);

}  // namespace tandem::cuda
