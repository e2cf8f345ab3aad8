// Conv on GPUs by our own kernels: any shape, one element of the result per thread; and what follows a convolution by cuDNN.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "ops/matmul/activation.h"
#include "tandem/types.h"

namespace tandem::cuda {

// As conv::Problem, in either layout; three spatial dimensions. Numbers of 32 bits, whose divisions are quick; products are taken in 64.
struct ConvShape {
  DType dtype;  // f32, f16 or bf16
  int batch, groups, group_in, group_out;
  int in[3], out[3], kernel[3], stride[3], dilation[3], before[3];
  bool channels_last;
};

// Added to the sums, and then applied to them; bias and residual may be null.
struct ConvFinish {
  const void* bias;
  const void* residual;
  Activation activation;
};

void launch_conv(const ConvShape& shape, const ConvFinish& finish, const void* x, const void* w, void* y, cudaStream_t stream);

// y[n,c,p] = finish(sums[n,p,c]) where `sums` has `stride` elements from one p to the next.
void launch_conv_finish_channels_last(DType dtype, const ConvFinish& finish, const void* sums, std::int64_t stride, void* y,
                                      std::int64_t batch, std::int64_t channels, std::int64_t positions, cudaStream_t stream);
// y[n,c,p] = finish(y[n,c,p])
void launch_conv_finish(DType dtype, const ConvFinish& finish, void* y, std::int64_t batch, std::int64_t channels, std::int64_t positions,
                        cudaStream_t stream);
// y[p,c] = finish(y[p,c])
void launch_conv_finish_last(DType dtype, const ConvFinish& finish, void* y, std::int64_t positions, std::int64_t channels,
                             cudaStream_t stream);

}  // namespace tandem::cuda
