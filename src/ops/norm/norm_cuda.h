#pragma once

#include <cstdint>

#include "device/cuda/start.h"
#include "tandem/types.h"

namespace tandem::cuda {

// Dense [rows, length] of f32, f16 or bf16, all of one type.
struct NormRows {
  const void* x;
  const void* residual;  // null: x is normalized as it is
  const void* offset;    // [length], added to every row of x; null: none
  const void* scale;     // [length]
  const void* bias;      // [length]; null: none
  void* y;               // may be x
  void* sum;             // x + offset + residual, rounded to the type; the norm sees it so
  std::int64_t rows, length;
  float share;  // 1 / length
  float epsilon;
  bool centers;  // LayerNorm, not RmsNorm
  DType type;
};

void launch_norm(const NormRows& rows, int multiprocessors, const Start& start);

}  // namespace tandem::cuda
