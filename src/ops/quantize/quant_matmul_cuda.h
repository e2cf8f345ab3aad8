#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "ops/matmul/activation.h"
#include "tandem/types.h"

namespace tandem::cuda {

// What follows sums of products of codes: y = activation(sums·scale_a·scale + bias) + residual, all [rows, columns].
struct CodeSums {
  const void* sums;             // i32 or f32, aligned to 32 bytes
  const void *scale_a, *scale;  // one number; one, or one per column
  const void *bias, *residual;  // of `type`, may be null
  void* y;
  std::int64_t count, columns;  // elements; `columns` is a multiple of 8
  std::int64_t scale_step;      // 1 where columns have scales of their own, else 0
  DType sums_type, type, scale_a_type, scale_type;
  Activation activation;
};
void launch_finish_codes(const CodeSums& f, cudaStream_t stream);

}  // namespace tandem::cuda
