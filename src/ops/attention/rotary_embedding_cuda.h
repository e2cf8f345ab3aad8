#pragma once

#include <cstdint>

#include "device/cuda/start.h"
#include "tandem/types.h"

namespace tandem::cuda {

// Dense x and y [lines, size] of f32, f16 or bf16, cosine and sine [·, rows, half] of the same type. y may be x.
struct RotaryRows {
  const void *x, *cosine, *sine;
  void* y;
  std::int64_t lines;
  int heads, rows, size, half;
  bool interleaved, heads_last;   // heads_last: lines count batch, rows, heads, and not batch, heads, rows
  std::int64_t angle_batch_step;  // 0 where all batch entries share the angles
  DType type;
};

void launch_rotary_embedding(const RotaryRows& rows, const Start& start);

}  // namespace tandem::cuda
