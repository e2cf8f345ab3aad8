// Convolution by cuDNN, whose C++ frontend stays in ops/cudnn_graph_cuda.cpp: its headers take half a minute to compile.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "tandem/types.h"

namespace tandem::cuda {

struct CudnnConvShape {
  DType dtype = DType::f16;  // f32, f16 or bf16; sums are f32, without TF32
  // Extents [n, c, spatial…] of x, of the weight [m, c/groups, taps…] and of the result, two or three spatial dimensions.
  std::vector<std::int64_t> x, w, y, strides, dilations, before, after;
  bool channels_last = false;  // in memory, of all three
  // What cuDNN does with the sums before they are rounded: adds [m], adds the result's shape, applies max(·, 0).
  bool biased = false, added = false, relu = false;
};

// One call's plan, which is compiled when it is made. Throws Error(unsupported) where there is no cuDNN or it cannot run the shape.
// Addresses are multiples of 16.
class CudnnConv {
 public:
  CudnnConv(const CudnnConvShape& shape, int ordinal);
  ~CudnnConv();
  std::size_t workspace_bytes() const;
  // Bias and residual: where the shape has them.
  void run(const void* x, const void* w, const void* bias, const void* residual, void* y, void* workspace, cudaStream_t stream) const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace tandem::cuda
