// Fills in CUDA graphs.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>

namespace tandem::cuda {

inline constexpr std::size_t kMostFilledByKernel = std::size_t{1} << 20;  // bytes

// Puts kernels in the place of the graph's fills (memset nodes) of one row of up to kMostFilledByKernel bytes, between the same nodes. A
// GPU is idle for about a microsecond before a fill of some bytes and for four after it (H200, driver 580), for half of one around a
// kernel; libraries fill counters in their workspace at each call. Returns how many there were. The GPU is the thread's current one.
std::size_t fill_by_kernels(cudaGraph_t graph);

}  // namespace tandem::cuda
