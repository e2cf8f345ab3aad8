#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "ops/divisor_cuda.h"
#include "tandem/types.h"

namespace tandem::cuda {

// x and y are [outer, extent, inner]; `lines` = outer · inner, at most kMostItems. Floats are summed in f64, integers in 64 bits that wrap.
struct CumSumView {
  DType dtype = DType::f32;
  std::int64_t lines = 0, extent = 0;
  Divisor inner;
  bool exclusive = false, reverse = false;
};
void launch_cum_sum(const CumSumView& view, const void* x, void* y, cudaStream_t stream);

}  // namespace tandem::cuda
