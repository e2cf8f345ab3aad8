#pragma once

#include <cstdint>

#include "device/cuda/start.h"
#include "tandem/types.h"

namespace tandem::cuda {

// Softmax over the middle one of [outer, extent, inner], dense, of f32, f16 or bf16. y may be x.
struct SoftmaxRows {
  const void* x;
  void* y;
  std::int64_t outer, extent, inner;
  bool logarithm;
  DType type;
};

void launch_softmax(const SoftmaxRows& rows, int multiprocessors, const Start& start);

}  // namespace tandem::cuda
