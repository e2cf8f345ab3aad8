#include "ops/conv/windows_cuda.h"

#include <algorithm>

#include "device/cuda/dependent.cuh"
#include "device/cuda/registers.cuh"
#include "ops/types_cuda.cuh"

namespace tandem::cuda {
namespace {

constexpr int kThreads = 256, kNormThreads = 512;

// Taps of a window that are inside, and how many count for a mean.
struct Taps {
  int start, first, last, counted;
};
__device__ __forceinline__ Taps taps_of(const PoolShape& s, int d, int o) {
  const int start = o * s.stride[d] - s.before[d], dilation = s.dilation[d];
  const int first = start >= 0 ? 0 : (-start + dilation - 1) / dilation;
  const int end = start >= s.in[d] ? 0 : (s.in[d] - start + dilation - 1) / dilation;
  const int last = max(first, min(s.kernel[d], end));
  const int with_padding = min(s.kernel[d], (s.in[d] + s.after[d] - start + dilation - 1) / dilation);
  return {start, first, last, s.count_padding ? with_padding : last - first};
}

// Rows of the grid are images.
template <typename T>
__global__ void __launch_bounds__(kThreads)
    pool(PoolShape s, const T* __restrict__ x, T* __restrict__ y, unsigned images, unsigned positions) {
  const unsigned position = blockIdx.x * kThreads + threadIdx.x;
  if (position >= positions) return;
  const int line = static_cast<int>(position / s.out[2]);
  const Taps c = taps_of(s, 2, static_cast<int>(position % s.out[2])), b = taps_of(s, 1, line % s.out[1]),
             a = taps_of(s, 0, line / s.out[1]);
  for (unsigned image = blockIdx.y; image < images; image += gridDim.y) {
    const T* from = x + std::int64_t{image} * s.in[0] * s.in[1] * s.in[2];
    float sum = s.max ? -INFINITY : 0.0f;
    for (int u = a.first; u < a.last; ++u)
      for (int v = b.first; v < b.last; ++v) {
        const T* row = from + (std::int64_t{a.start + u * s.dilation[0]} * s.in[1] + b.start + v * s.dilation[1]) * s.in[2] + c.start;
        for (int t = c.first; t < c.last; ++t) {
          const float value = to_float(row[t * s.dilation[2]]);
          if (s.max) sum = sum > value || sum != sum ? sum : value;
          else sum += value;
        }
      }
    const float counted = static_cast<float>(a.counted) * static_cast<float>(b.counted) * static_cast<float>(c.counted);
    y[std::int64_t{image} * positions + position] = from_float<T>(s.max ? sum : sum / counted);
  }
}

// The same of several channels beside each other; `across` vectors hold those of one row.
template <typename T, int kVector>
__global__ void __launch_bounds__(kThreads, kNeedsRegisters ? 2 : 4)
    pool_last(PoolShape s, const T* __restrict__ x, T* __restrict__ y, unsigned images, unsigned items, unsigned across) {
  using Some = Vector<T, kVector>;
  const unsigned item = blockIdx.x * kThreads + threadIdx.x;
  if (item >= items) return;
  const unsigned lane = item % across;
  const int position = static_cast<int>(item / across), line = position / s.out[2];
  const Taps c = taps_of(s, 2, position % s.out[2]), b = taps_of(s, 1, line % s.out[1]), a = taps_of(s, 0, line / s.out[1]);
  const float counted = static_cast<float>(a.counted) * static_cast<float>(b.counted) * static_cast<float>(c.counted);
  for (unsigned image = blockIdx.y; image < images; image += gridDim.y) {
    const Some* from = reinterpret_cast<const Some*>(x) + std::int64_t{image} * s.in[0] * s.in[1] * s.in[2] * across + lane;
    float sums[kVector];
#pragma unroll
    for (int j = 0; j < kVector; ++j) sums[j] = s.max ? -INFINITY : 0.0f;
    for (int u = a.first; u < a.last; ++u)
      for (int v = b.first; v < b.last; ++v)
        for (int t = c.first; t < c.last; ++t) {
          const int p = a.start + u * s.dilation[0], q = b.start + v * s.dilation[1], r = c.start + t * s.dilation[2];
          const Some tap = from[((std::int64_t{p} * s.in[1] + q) * s.in[2] + r) * across];
#pragma unroll
          for (int j = 0; j < kVector; ++j) {
            const float value = to_float(tap.at[j]);
            if (s.max) sums[j] = sums[j] > value || sums[j] != sums[j] ? sums[j] : value;
            else sums[j] += value;
          }
        }
    Some result;
#pragma unroll
    for (int j = 0; j < kVector; ++j) result.at[j] = from_float<T>(s.max ? sums[j] : sums[j] / counted);
    reinterpret_cast<Some*>(y)[std::int64_t{image} * items + item] = result;
  }
}

// The sum over a block, for all of its threads.
__device__ float block_sum(float value) {
  __shared__ float parts[kNormThreads / 32];
  for (int step = 16; step > 0; step /= 2) value += __shfl_xor_sync(0xffffffffu, value, step);
  __syncthreads();
  if (threadIdx.x % 32 == 0) parts[threadIdx.x / 32] = value;
  __syncthreads();
  float sum = threadIdx.x % 32 < kNormThreads / 32 ? parts[threadIdx.x % 32] : 0.0f;
  for (int step = 16; step > 0; step /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, step);
  return sum;
}

// A block per group, which is one run of memory: mean, squares around it, result. The second and third pass find it in the cache.
template <typename T, int kVector>
__global__ void __launch_bounds__(kNormThreads)
    group_norm(GroupNormShape s, const T* __restrict__ x, const T* __restrict__ scale, const T* __restrict__ bias, T* __restrict__ y) {
  using Some = Vector<T, kVector>;
  const unsigned length = static_cast<unsigned>(s.size) * static_cast<unsigned>(s.image);
  const std::int64_t start = std::int64_t{blockIdx.x} * length;
  const unsigned first_channel = blockIdx.x % static_cast<unsigned>(s.channels / s.size) * static_cast<unsigned>(s.size);
  const auto* from = reinterpret_cast<const Some*>(x + start);
  auto* to = reinterpret_cast<Some*>(y + start);
  float sum = 0;
  for (unsigned i = threadIdx.x; i < length / kVector; i += kNormThreads) {
    const Some v = from[i];
    for (int j = 0; j < kVector; ++j) sum += to_float(v.at[j]);
  }
  const float mean = block_sum(sum) / static_cast<float>(length);
  float squares = 0;
  for (unsigned i = threadIdx.x; i < length / kVector; i += kNormThreads) {
    const Some v = from[i];
    for (int j = 0; j < kVector; ++j) {
      const float d = to_float(v.at[j]) - mean;
      squares = fmaf(d, d, squares);
    }
  }
  const float factor = 1.0f / sqrtf(block_sum(squares) / static_cast<float>(length) + s.epsilon);
  for (unsigned i = threadIdx.x; i < length / kVector; i += kNormThreads) {
    Some v = from[i];
    const unsigned channel = first_channel + i * kVector / static_cast<unsigned>(s.image);  // the vectors of an image end where it does
    const float a = to_float(scale[channel]), b = to_float(bias[channel]);
    for (int j = 0; j < kVector; ++j) v.at[j] = from_float<T>(fmaf((to_float(v.at[j]) - mean) * factor, a, b));
    to[i] = v;
  }
}

// Rows of the grid are the outer indices.
template <typename T>
__global__ void __launch_bounds__(kThreads)
    resize(ResizeShape s, const T* __restrict__ x, T* __restrict__ y, unsigned outer, unsigned positions) {
  const unsigned position = blockIdx.x * kThreads + threadIdx.x;
  if (position >= positions) return;
  unsigned at[kResizeRank], rest = position;
  unsigned combinations = 1;
#pragma unroll
  for (int d = kResizeRank - 1; d >= 0; --d) {
    if (d >= s.rank) continue;
    at[d] = rest % s.out[d] * s.taps[d];
    rest /= s.out[d];
    combinations *= s.taps[d];
  }
  for (unsigned image = blockIdx.y; image < outer; image += gridDim.y) {
    float sum = 0;
    for (unsigned k = 0; k < combinations; ++k) {
      std::int64_t source = image;
      float weight = 1;
      unsigned left = k;
#pragma unroll
      for (int d = 0; d < kResizeRank; ++d) {
        if (d >= s.rank) continue;
        const unsigned entry = at[d] + left % s.taps[d];
        left /= s.taps[d];
        source = source * s.in[d] + s.rows[d][entry];
        weight *= s.weights[d][entry];
      }
      if (weight != 0.0f) sum = fmaf(weight, to_float(x[source]), sum);
    }
    y[std::int64_t{image} * positions + position] = from_float<T>(sum);
  }
}

unsigned rows_of_grid(std::int64_t rows) { return static_cast<unsigned>(std::min<std::int64_t>(rows, 65535)); }
unsigned small(std::int64_t count) { return grid_for(count, 1); }  // that it fits is checked there

}  // namespace

void launch_pool(const PoolShape& shape, const void* x, void* y, cudaStream_t stream) {
  const std::int64_t positions = std::int64_t{shape.out[0]} * shape.out[1] * shape.out[2];
  const dim3 grid(grid_for(positions, kThreads), rows_of_grid(shape.images));
  with_float_type(shape.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    if (shape.channels != 1) {
      constexpr int kVector = 16 / sizeof(T);
      const auto launch = [&](auto kernel, int vector) {
        const std::int64_t across = shape.channels / vector, items = positions * across;
        start_kernel(stream, kernel, dim3(grid_for(items, kThreads), rows_of_grid(shape.images)), kThreads, 0, shape,
                     static_cast<const T*>(x), static_cast<T*>(y), small(shape.images), small(items), small(across));
      };
      const bool aligned = reinterpret_cast<std::uintptr_t>(x) % 16 == 0 && reinterpret_cast<std::uintptr_t>(y) % 16 == 0;
      if (shape.channels % kVector == 0 && aligned) launch(pool_last<T, kVector>, kVector);
      else launch(pool_last<T, 1>, 1);
      return;
    }
    start_kernel(stream, pool<T>, grid, kThreads, 0, shape, static_cast<const T*>(x), static_cast<T*>(y), small(shape.images),
                 small(positions));
  });
}

void launch_group_norm(const GroupNormShape& shape, const void* x, const void* scale, const void* bias, void* y, cudaStream_t stream) {
  const unsigned grid = small(std::int64_t{shape.batch} * shape.channels / shape.size);
  with_float_type(shape.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    constexpr int kVector = 16 / sizeof(T);
    const auto aligned = [](const void* p) { return reinterpret_cast<std::uintptr_t>(p) % 16 == 0; };
    const auto launch = [&](auto kernel) {
      start_kernel(stream, kernel, grid, kNormThreads, 0, shape, static_cast<const T*>(x), static_cast<const T*>(scale),
                   static_cast<const T*>(bias), static_cast<T*>(y));
    };
    if (shape.image % kVector == 0 && aligned(x) && aligned(y)) launch(group_norm<T, kVector>);
    else launch(group_norm<T, 1>);
  });
}

void launch_resize(const ResizeShape& shape, const void* x, void* y, cudaStream_t stream) {
  std::int64_t positions = 1;
  for (int d = 0; d < shape.rank; ++d) positions *= shape.out[d];
  const dim3 grid(grid_for(positions, kThreads), rows_of_grid(shape.outer));
  with_float_type(shape.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    start_kernel(stream, resize<T>, grid, kThreads, 0, shape, static_cast<const T*>(x), static_cast<T*>(y), small(shape.outer),
                 small(positions));
  });
}

}  // namespace tandem::cuda
