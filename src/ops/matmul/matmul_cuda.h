#pragma once

#include <cstdint>
#include <memory>

#include "device/cuda/start.h"
#include "ops/matmul/activation.h"
#include "tandem/types.h"

namespace tandem {
class PreparedKernel;
struct PrepareArgs;

namespace kernels {
// Our own kernel for what cuBLASLt does not take.
std::unique_ptr<PreparedKernel> prepare_cuda_matmul(const PrepareArgs& args);
}  // namespace kernels

namespace cuda {

// `batch` products of a [m,k] and b [k,n], their matrices a_stride, b_stride and m·n elements apart.
struct MatMulShape {
  std::int64_t m, n, k, batch, a_stride, b_stride;
};

// c = activation(a·b + bias) + residual; bias and residual may be null. Any type of whole bytes but bool.
void launch_matmul(DType dtype, Activation activation, const MatMulShape& shape, const void* a, const void* b, const void* bias,
                   const void* residual, void* c, const Start& start);

}  // namespace cuda
}  // namespace tandem
