#pragma once

#include <cstdint>
#include <memory>

#include "device/cuda/start.h"
#include "ops/matmul/activation.h"
#include "tandem/types.h"

namespace tandem {
class PreparedKernel;
struct PrepareArgs;
struct MatMulProblem;

namespace kernels {
// A few rows times one matrix, which is read once at the speed of memory; null where it is no such product.
std::unique_ptr<PreparedKernel> prepare_matvec(const PrepareArgs& args, const MatMulProblem& problem);
}  // namespace kernels

namespace cuda {

inline constexpr std::int64_t kMatVecRows = 4;       // the most rows of a
inline constexpr std::int64_t kMatVecColumns = 512;  // bytes of a row of b that a block reads
inline constexpr std::int64_t kMatVecDepth = 64;     // rows of b that a block reads at once

// c = activation(a·b + bias) + residual with a [m,k], b [k,n], m ≤ kMatVecRows, of f16, bf16 or f32; n is a multiple of 16 bytes and b
// aligned to 16. `splits` blocks share the k of one column block, `depth` each, and meet in `partials` [splits, m, n] and the zeroed
// words `arrived`, one per column block, which are zero again afterwards.
struct MatVec {
  const void *a, *b, *bias, *residual;  // bias and residual may be null
  void* c;
  float* partials;
  unsigned* arrived;
  std::int64_t m, n, k, depth, splits;
  Activation activation;
  bool b_resident;  // may be read before what precedes the launch has ended
};
void launch_matvec(DType dtype, const MatVec& p, const Start& start);
// Blocks for a product of so many rows that a multiprocessor of the current GPU holds at once.
int matvec_blocks_at_once(DType dtype, std::int64_t rows);

}  // namespace cuda
}  // namespace tandem
