// The NVIDIA driver of this machine, as far as a program that lacks it can tell.
#pragma once

#include <string>

namespace tandem::cuda {

// Why the runtime that this program was built with cannot use the driver: there is none, or it is older than `needed`, a CUDA version as
// CUDART_VERSION has it.
std::string driver_problem(int needed);

}  // namespace tandem::cuda
