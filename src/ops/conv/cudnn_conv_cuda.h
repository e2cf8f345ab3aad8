// Convolution by cuDNN, whose C++ frontend stays in ops/cudnn_graph_cuda.cpp: its headers take half a minute to compile.
#pragma once

#include <cuda_runtime.h>

#include <compare>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "tandem/types.h"

namespace tandem::cuda {

struct CudnnConvShape {
  DType dtype = DType::f16;  // f32, f16 or bf16; sums are f32
  bool tf32 = false;         // of f32: operands may be rounded to TF32
  // Extents [n, c, spatial…] of x, of the weight [m, c/groups, taps…] and of the result, two or three spatial dimensions.
  std::vector<std::int64_t> x, w, y, strides, dilations, before, after;
  bool channels_last = false;  // in memory, of all three
  // What cuDNN does with the sums before they are rounded: adds [m], adds the result's shape, applies max(·, 0).
  bool biased = false, added = false, relu = false;

  auto operator<=>(const CudnnConvShape&) const = default;
};

// Names of the plans that cuDNN proposes, "eng37_k2=1_k14=3": engine and knobs, the same for one version of cuDNN. What it thinks best is
// first; none where it cannot run the shape. None is built here. Throws Error(unsupported) where there is no cuDNN.
std::vector<std::string> cudnn_conv_plans(const CudnnConvShape& shape, int ordinal, std::size_t most);

// One call's plan, built when it is first asked for, which may take a second where cuDNN compiles it, and shared by all that ask for the
// same: that of this name; cuDNN's own choice where that is empty, is not proposed any more or cannot be built. Throws Error(unsupported)
// where there is no cuDNN or it cannot run the shape. Addresses are multiples of 16.
class CudnnConv {
 public:
  CudnnConv(const CudnnConvShape& shape, int ordinal, std::string_view plan = {});
  ~CudnnConv();
  std::size_t workspace_bytes() const;
  // Bias and residual: where the shape has them.
  void run(const void* x, const void* w, const void* bias, const void* residual, void* y, void* workspace, cudaStream_t stream) const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace tandem::cuda
