// Attention by cuDNN, whose C++ frontend stays in ops/cudnn_graph_cuda.cpp: its headers take half a minute to compile.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <memory>

#include "ops/attention/core_cpu.h"

namespace tandem::cuda {

struct CudnnAttentionShape {
  DType dtype = DType::bf16;  // or f16
  std::int64_t batch = 0, heads = 0, kv_heads = 0, rows = 0, columns = 0, size = 0, value_size = 0;
  attention::Steps q, k, v, out;  // in elements; elements of a row are contiguous
  enum class Causal : std::uint8_t { none, upper_left, lower_right } causal = Causal::none;
  float scale = 1;
  bool lse = false;  // whether run() is given memory for it
};

// One call's plan, which is compiled when it is made: tens of milliseconds, half a second the first time. Throws Error(unsupported) where
// there is no cuDNN or it cannot run the shape.
class CudnnAttention {
 public:
  CudnnAttention(const CudnnAttentionShape& shape, int ordinal);
  ~CudnnAttention();
  std::size_t workspace_bytes() const;
  // `lse`: f32 [batch, heads, rows], dense: the natural logarithm of each row's sum of exp(score). Null where the shape says that none is
  // wanted.
  void run(const void* q, const void* k, const void* v, void* out, float* lse, void* workspace, cudaStream_t stream) const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace tandem::cuda
