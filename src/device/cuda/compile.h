// Kernels compiled while the program runs, by NVRTC.
#pragma once

#include <cuda_runtime.h>

#include <string>
#include <vector>

namespace tandem::cuda {

// CUDA C++ to the machine code of GPUs of compute capability sm / 10, for `cudaLibraryLoadData`. Products and sums are not contracted.
// Throws Error(unsupported) where NVRTC is missing, Error(internal) with its messages where the text does not compile.
std::vector<char> compile(const std::string& source, int sm);

// The kernel `name` of a text; each text is compiled and loaded once in a process. Usable on every GPU of that kind; never unloaded.
cudaKernel_t compiled_kernel(const std::string& source, const char* name, int sm);

}  // namespace tandem::cuda
