#include "ops/conv/conv_cuda.h"

#include <algorithm>

#include "device/cuda/dependent.cuh"
#include "ops/matmul/finish_cuda.cuh"
#include "ops/types_cuda.cuh"

namespace tandem::cuda {
namespace {

constexpr int kThreads = 256, kTileChannels = 32, kTilePositions = 64, kLanes = 32;

template <typename T>
__device__ __forceinline__ T finished(float sum, const ConvFinish& finish, std::int64_t channel, std::int64_t i) {
  if (finish.bias) sum += to_float(static_cast<const T*>(finish.bias)[channel]);
  if (finish.residual) sum += to_float(static_cast<const T*>(finish.residual)[i]);
  return from_float<T>(activate_for<T>(finish.activation, sum));
}

// Calls use(p, q, r, number of the tap), a place in x, for the taps of the window of y at [a, b, c] that lie inside.
template <typename Use>
__device__ __forceinline__ void each_tap(const ConvShape& s, int a, int b, int c, const Use& use) {
  for (int u = 0; u < s.kernel[0]; ++u) {
    const int p = a * s.stride[0] + u * s.dilation[0] - s.before[0];
    if (p < 0 || p >= s.in[0]) continue;
    for (int v = 0; v < s.kernel[1]; ++v) {
      const int q = b * s.stride[1] + v * s.dilation[1] - s.before[1];
      if (q < 0 || q >= s.in[1]) continue;
      for (int t = 0; t < s.kernel[2]; ++t) {
        const int r = c * s.stride[2] + t * s.dilation[2] - s.before[2];
        if (r >= 0 && r < s.in[2]) use(p, q, r, (u * s.kernel[1] + v) * s.kernel[2] + t);
      }
    }
  }
}

// Rows of the grid are images of one channel, which `rows` counts over the batch.
template <typename T>
__global__ void __launch_bounds__(kThreads, 2) conv(ConvShape s, ConvFinish finish, const T* __restrict__ x, const T* __restrict__ w,
                                                    T* __restrict__ y, unsigned rows, unsigned positions) {
  const unsigned position = blockIdx.x * kThreads + threadIdx.x;
  if (position >= positions) return;
  const int c = static_cast<int>(position % s.out[2]), line = static_cast<int>(position / s.out[2]), b = line % s.out[1],
            a = line / s.out[1];
  const std::int64_t area = std::int64_t{s.in[1]} * s.in[2], image = s.in[0] * area;
  const int taps = s.kernel[0] * s.kernel[1] * s.kernel[2], channels = s.groups * s.group_out;
  for (unsigned row = blockIdx.y; row < rows; row += gridDim.y) {
    const int channel = static_cast<int>(row % channels), n = static_cast<int>(row / channels);
    const T* from = x + (std::int64_t{n} * s.groups + channel / s.group_out) * s.group_in * image;
    const T* tap = w + std::int64_t{channel} * s.group_in * taps;
    float sum = 0;
    each_tap(s, a, b, c, [&](int p, int q, int r, int tap_index) {
      const T* at = from + p * area + std::int64_t{q} * s.in[2] + r;
      const T* factor = tap + tap_index;
      for (int j = 0; j < s.group_in; ++j) sum = fmaf(to_float(at[j * image]), to_float(factor[std::int64_t{j} * taps]), sum);
    });
    const std::int64_t i = std::int64_t{row} * positions + position;
    y[i] = finished<T>(sum, finish, channel, i);
  }
}

// Channels last: a line of threads has channels of one window, which read the same of x where they are of one group. Rows of the grid are
// windows, which `rows` counts over the batch.
template <typename T>
__global__ void __launch_bounds__(kThreads, 2)
    conv_last(ConvShape s, ConvFinish finish, const T* __restrict__ x, const T* __restrict__ w, T* __restrict__ y, unsigned rows) {
  const int channel = static_cast<int>(blockIdx.x * kLanes + threadIdx.x), channels = s.groups * s.group_out;
  if (channel >= channels) return;
  const std::int64_t width = std::int64_t{s.groups} * s.group_in;
  const T* from = x + std::int64_t{channel / s.group_out} * s.group_in;
  const T* taps = w + std::int64_t{channel} * s.kernel[0] * s.kernel[1] * s.kernel[2] * s.group_in;
  for (unsigned row = blockIdx.y * blockDim.y + threadIdx.y; row < rows; row += gridDim.y * blockDim.y) {
    const unsigned line = row / s.out[2], plane = line / s.out[1];
    const int c = static_cast<int>(row % s.out[2]), b = static_cast<int>(line % s.out[1]), a = static_cast<int>(plane % s.out[0]);
    const std::int64_t image = std::int64_t{plane / s.out[0]} * s.in[0];
    float sum = 0;
    each_tap(s, a, b, c, [&](int p, int q, int r, int tap_index) {
      const T* at = from + (((image + p) * s.in[1] + q) * s.in[2] + r) * width;
      const T* tap = taps + std::int64_t{tap_index} * s.group_in;
      for (int j = 0; j < s.group_in; ++j) sum = fmaf(to_float(at[j]), to_float(tap[j]), sum);
    });
    const std::int64_t i = std::int64_t{row} * channels + channel;
    y[i] = finished<T>(sum, finish, channel, i);
  }
}

// A tile of positions × channels goes through shared memory, so that both sides are read and written along their rows.
template <typename T>
__global__ void __launch_bounds__(kThreads)
    finish_channels_last(ConvFinish finish, const T* __restrict__ sums, std::int64_t stride, T* __restrict__ y, unsigned batch,
                         unsigned channels, unsigned positions, unsigned blocks) {
  __shared__ T tile[kTilePositions][kTileChannels + 2];
  const unsigned first_position = blockIdx.x % blocks * kTilePositions, first_channel = blockIdx.x / blocks * kTileChannels;
  const unsigned lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  for (unsigned n = blockIdx.y; n < batch; n += gridDim.y) {
    for (unsigned p = warp; p < kTilePositions; p += kThreads / 32)
      if (first_position + p < positions && first_channel + lane < channels)
        tile[p][lane] = sums[(std::int64_t{n} * positions + first_position + p) * stride + first_channel + lane];
    __syncthreads();
    for (unsigned c = warp; c < kTileChannels; c += kThreads / 32)
      for (unsigned p = lane; p < kTilePositions; p += 32) {
        const unsigned channel = first_channel + c, position = first_position + p;
        if (channel >= channels || position >= positions) continue;
        const std::int64_t i = (std::int64_t{n} * channels + channel) * positions + position;
        y[i] = finished<T>(to_float(tile[p][c]), finish, channel, i);
      }
    __syncthreads();
  }
}

template <typename T>
__global__ void __launch_bounds__(kThreads) finish_in_place(ConvFinish finish, T* y, unsigned rows, unsigned channels, unsigned positions) {
  const unsigned position = blockIdx.x * kThreads + threadIdx.x;
  if (position >= positions) return;
  for (unsigned row = blockIdx.y; row < rows; row += gridDim.y) {
    const std::int64_t i = std::int64_t{row} * positions + position;
    y[i] = finished<T>(to_float(y[i]), finish, row % channels, i);
  }
}

template <typename T, int kVector>
__global__ void __launch_bounds__(kThreads) finish_last(ConvFinish finish, T* y, unsigned items, unsigned channels) {
  const unsigned item = blockIdx.x * kThreads + threadIdx.x;
  if (item >= items) return;
  const std::int64_t i = std::int64_t{item} * kVector;
  const unsigned channel = item % (channels / kVector) * kVector;
  auto* at = reinterpret_cast<Vector<T, kVector>*>(y + i);
  Vector<T, kVector> v = *at;
#pragma unroll
  for (int j = 0; j < kVector; ++j) v.at[j] = finished<T>(to_float(v.at[j]), finish, channel + j, i + j);
  *at = v;
}

unsigned rows_of_grid(std::int64_t rows) { return static_cast<unsigned>(std::min<std::int64_t>(rows, 65535)); }
unsigned small(std::int64_t count) { return grid_for(count, 1); }  // that it fits is checked there

}  // namespace

void launch_conv(const ConvShape& shape, const ConvFinish& finish, const void* x, const void* w, void* y, cudaStream_t stream) {
  const std::int64_t channels = std::int64_t{shape.groups} * shape.group_out, rows = shape.batch * channels;
  const std::int64_t positions = std::int64_t{shape.out[0]} * shape.out[1] * shape.out[2];
  with_float_type(shape.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    if (shape.channels_last) {
      const std::int64_t windows = shape.batch * positions;
      const dim3 block(kLanes, kThreads / kLanes), grid(grid_for(channels, kLanes), rows_of_grid(grid_for(windows, block.y)));
      start_kernel(stream, conv_last<T>, grid, block, 0, shape, finish, static_cast<const T*>(x), static_cast<const T*>(w),
                   static_cast<T*>(y), small(windows));
      return;
    }
    start_kernel(stream, conv<T>, dim3(grid_for(positions, kThreads), rows_of_grid(rows)), kThreads, 0, shape, finish,
                 static_cast<const T*>(x), static_cast<const T*>(w), static_cast<T*>(y), small(rows), small(positions));
  });
}

void launch_conv_finish_channels_last(DType dtype, const ConvFinish& finish, const void* sums, std::int64_t stride, void* y,
                                      std::int64_t batch, std::int64_t channels, std::int64_t positions, cudaStream_t stream) {
  const std::int64_t blocks = (positions + kTilePositions - 1) / kTilePositions;
  const dim3 grid(small(blocks * ((channels + kTileChannels - 1) / kTileChannels)), rows_of_grid(batch));
  with_float_type(dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    start_kernel(stream, finish_channels_last<T>, grid, kThreads, 0, finish, static_cast<const T*>(sums), stride, static_cast<T*>(y),
                 small(batch), small(channels), small(positions), small(blocks));
  });
}

void launch_conv_finish(DType dtype, const ConvFinish& finish, void* y, std::int64_t batch, std::int64_t channels, std::int64_t positions,
                        cudaStream_t stream) {
  const dim3 grid(grid_for(positions, kThreads), rows_of_grid(batch * channels));
  with_float_type(dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    start_kernel(stream, finish_in_place<T>, grid, kThreads, 0, finish, static_cast<T*>(y), small(batch * channels), small(channels),
                 small(positions));
  });
}
void launch_conv_finish_last(DType dtype, const ConvFinish& finish, void* y, std::int64_t positions, std::int64_t channels,
                             cudaStream_t stream) {
  with_float_type(dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    constexpr int kVector = 16 / sizeof(T);
    const auto launch = [&](auto kernel, int vector) {
      const std::int64_t items = positions * channels / vector;
      start_kernel(stream, kernel, grid_for(items, kThreads), kThreads, 0, finish, static_cast<T*>(y), small(items), small(channels));
    };
    if (channels % kVector == 0 && reinterpret_cast<std::uintptr_t>(y) % 16 == 0) launch(finish_last<T, kVector>, kVector);
    else launch(finish_last<T, 1>, 1);
  });
}

}  // namespace tandem::cuda
