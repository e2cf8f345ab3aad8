#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "device/cuda/start.h"
#include "ops/matmul/activation.h"
#include "tandem/types.h"

namespace tandem::cuda {

// y = activation(x·b + bias) + residual for one row x [k]. `packed` is b [k,n] by columns: [n,k], aligned to 16; k is a multiple of 8. All
// of f16 or bf16, summed in f32 in one order. bias and residual may be null.
struct PackedMatVec {
  const void *x, *packed, *bias, *residual;
  void* y;
  int n, k;
  Activation activation;
  bool resident;  // `packed` may be read before what precedes the launch has ended
};
// The longest row, and the most of them.
inline constexpr std::int64_t kPackedMatVecMost = 1 << 28;

void launch_packed_matvec(DType dtype, const PackedMatVec& p, const Start& start);

// b [k,n] of 16-bit elements to [n,k].
void launch_pack_columns(const void* b, void* packed, std::int64_t k, std::int64_t n, cudaStream_t stream);

}  // namespace tandem::cuda
