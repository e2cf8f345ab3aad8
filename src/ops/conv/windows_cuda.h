// The kernels of GPUs for pools, GroupNorm and Resize.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "tandem/types.h"

namespace tandem::cuda {

// As pool::Problem, of f32, f16 or bf16.
struct PoolShape {
  DType dtype;
  bool max, count_padding;
  std::int64_t images, channels;
  int in[3], out[3], kernel[3], stride[3], dilation[3], before[3], after[3];
};
void launch_pool(const PoolShape& shape, const void* x, void* y, cudaStream_t stream);

// x and y are [batch, channels, image]; a group is `size` channels.
struct GroupNormShape {
  DType dtype;
  int batch, channels, image, size;
  float epsilon;
};
void launch_group_norm(const GroupNormShape& shape, const void* x, const void* scale, const void* bias, void* y, cudaStream_t stream);

// x is [outer, in…], y [outer, out…]; the tables lie on the device, `taps` entries per row of the result.
inline constexpr int kResizeRank = 4;
struct ResizeShape {
  DType dtype;
  int rank;
  std::int64_t outer;
  int in[kResizeRank], out[kResizeRank];
  int taps[kResizeRank];
  const int* rows[kResizeRank];
  const float* weights[kResizeRank];
};
void launch_resize(const ResizeShape& shape, const void* x, void* y, cudaStream_t stream);

}  // namespace tandem::cuda
