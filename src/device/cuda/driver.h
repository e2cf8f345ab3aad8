// The NVIDIA driver and the GPUs of this machine, where this program cannot use them.
#pragma once

#include <string>

namespace tandem::cuda {

// Why the runtime that this program was built with cannot use the driver: there is none, or it is older than `needed`, a CUDA version as
// CUDART_VERSION has it.
std::string driver_problem(int needed);

// Why no kernel of this program runs on a GPU of compute capability sm / 10.
std::string kernels_problem(int sm);
// Why such a GPU, newer than all that there is machine code for, cannot use the text of kernels: the driver said so.
std::string text_problem(int sm, const char* reason);

}  // namespace tandem::cuda
