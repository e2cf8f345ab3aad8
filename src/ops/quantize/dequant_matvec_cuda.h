#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "ops/matmul/activation.h"
#include "tandem/types.h"

namespace tandem::cuda {

inline constexpr std::int64_t kDequantRows = 4;   // the most rows of a
inline constexpr std::int64_t kDequantWarps = 8;  // of a block; each reads rows of b of its own

// c = activation(a·((b - zero)·scale) + bias) + residual with a [m,k] of f16, bf16 or f32, b [k,n] of codes of 4 or 8 bits,
// m ≤ kDequantRows; rows of b and b itself begin at multiples of 16 bytes. The scale of row i and column j is
// (i / block)·scale_row + j·scale_column; zero points, which may be null, lie alike. `splits` blocks share the k of one column block,
// `depth` each, a multiple of kDequantWarps, and meet in `partials` [splits, m, n] and the zeroed words `arrived`, one per column block,
// which are zero again afterwards.
struct DequantMatVec {
  const void *a, *b, *scale, *zero, *bias, *residual;  // bias and residual may be null
  void* c;
  float* partials;
  unsigned* arrived;
  std::int64_t m, n, k, block, scale_row, scale_column, depth, splits;
  DType type, scale_type;  // of a, bias, residual and c; of scales
  Activation activation;
};
void launch_dequant_matvec(DType codes, const DequantMatVec& p, cudaStream_t stream);

// How it is cut for so many rows of a.
struct DequantCut {
  std::int64_t columns = 0;  // of b, per block
  int blocks_at_once = 1;    // per multiprocessor of the current GPU
};
DequantCut dequant_cut(DType codes, std::int64_t rows, bool scales_last);

}  // namespace tandem::cuda
