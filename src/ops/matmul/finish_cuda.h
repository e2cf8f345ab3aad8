#pragma once

#include <cstdint>

#include "device/cuda/start.h"
#include "ops/matmul/activation.h"
#include "tandem/types.h"

namespace tandem::cuda {

// c[i] = activation(c[i] + bias[i mod columns]) + residual[i], of f16, bf16, f32 or f64; bias and residual may be null.
void launch_finish(DType dtype, Activation activation, void* c, const void* bias, const void* residual, std::int64_t count,
                   std::int64_t columns, const Start& start);

}  // namespace tandem::cuda
