#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "ops/divisor_cuda.h"
#include "tandem/types.h"

namespace tandem::cuda {

// A tensor seen as [outer, extent, inner]; element (o, e, i) has the scale and zero point
// o·outer_step + (e / block)·axis_step + i·inner_step.
struct Quantizing {
  const void *x, *scale, *zero;  // zero may be null; it has the quantised type
  void* y;
  std::int64_t count, extent, inner, block, outer_step, axis_step, inner_step;
  DType from, to, scale_type;
  float least, most;                      // of the quantised type
  Divisor by_inner, by_extent, by_block;  // of tensors of up to kMostItems elements
};

// f32, f16, bf16 to integers of 4, 8 and 16 bits, and to 8-bit floats that saturate.
void launch_quantize(const Quantizing& q, cudaStream_t stream);
// Those types and i32 to f32, f16, bf16.
void launch_dequantize(const Quantizing& q, cudaStream_t stream);

}  // namespace tandem::cuda
