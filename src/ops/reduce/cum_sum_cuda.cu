#include "device/cuda/dependent.cuh"
#include "device/cuda/registers.cuh"
#include "ops/move_cuda.cuh"
#include "ops/reduce/cum_sum_cuda.h"

namespace tandem::cuda {
namespace {

constexpr int kThreads = 256, kWarps = kThreads / 32, kTakes = 8;  // elements that a thread sums of a tile

template <typename T>
struct Summed {
  using type = std::uint64_t;
  static __device__ std::uint64_t from(T x) { return static_cast<std::uint64_t>(static_cast<std::int64_t>(x)); }
  static __device__ T to(std::uint64_t x) { return static_cast<T>(x); }
};
template <>
struct Summed<double> {
  using type = double;
  static __device__ double from(double x) { return x; }
  static __device__ double to(double x) { return x; }
};
template <typename T>
struct SummedFloat {
  using type = double;
  static __device__ double from(T x) { return to_float(x); }
  static __device__ T to(double x) { return from_float<T>(static_cast<float>(x)); }
};
template <>
struct Summed<float> : SummedFloat<float> {};
template <>
struct Summed<__half> : SummedFloat<__half> {};
template <>
struct Summed<__nv_bfloat16> : SummedFloat<__nv_bfloat16> {};

// The first element of a line in the order of the sum, and the way to the next.
struct Line {
  std::int64_t first, step;
};

__device__ __forceinline__ Line line_of(const CumSumView& v, std::uint32_t line) {
  const std::int64_t inner = v.inner.by, i = take_index(line, v.inner), base = line * v.extent * inner + i;
  return v.reverse ? Line{base + (v.extent - 1) * inner, -inner} : Line{base, inner};
}

// A thread for each line: neighbours read neighbours.
template <typename T>
__global__ void __launch_bounds__(kThreads) sum_lines(CumSumView v, const T* __restrict__ x, T* __restrict__ y) {
  using S = Summed<T>;
  const std::uint32_t number = blockIdx.x * kThreads + threadIdx.x;
  if (number >= v.lines) return;
  const Line line = line_of(v, number);
  typename S::type sum = 0;
  for (std::int64_t j = 0; j < v.extent; j += kTakes) {
    T taken[kTakes];
#pragma unroll
    for (int k = 0; k < kTakes; ++k)
      if (j + k < v.extent) taken[k] = x[line.first + (j + k) * line.step];
#pragma unroll
    for (int k = 0; k < kTakes; ++k) {
      if (j + k >= v.extent) break;
      const typename S::type before = sum;
      sum += S::from(taken[k]);
      y[line.first + (j + k) * line.step] = S::to(v.exclusive ? before : sum);
    }
  }
}

// A block for each line, tile by tile: sums of threads, of warps, of what came before.
template <typename T>
__global__ void __launch_bounds__(kThreads, kRoomFrom100) sum_tiles(CumSumView v, const T* __restrict__ x, T* __restrict__ y) {
  using S = Summed<T>;
  using A = typename S::type;
  __shared__ A warps[2][kWarps];
  const Line line = line_of(v, blockIdx.x);
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  A carry = 0;
  int turn = 0;
  for (std::int64_t tile = 0; tile < v.extent; tile += kThreads * kTakes, turn ^= 1) {
    const std::int64_t begin = tile + threadIdx.x * kTakes;
    A sums[kTakes + 1];  // of the elements before each, within the thread
    sums[0] = 0;
#pragma unroll
    for (int k = 0; k < kTakes; ++k) sums[k + 1] = begin + k < v.extent ? S::from(x[line.first + (begin + k) * line.step]) : A{0};
#pragma unroll
    for (int k = 0; k < kTakes; ++k) sums[k + 1] += sums[k];
    A inclusive = sums[kTakes];
#pragma unroll
    for (int distance = 1; distance < 32; distance *= 2) {
      const A other = __shfl_up_sync(0xffffffffu, inclusive, distance);
      if (lane >= distance) inclusive += other;
    }
    if (lane == 31) warps[turn][warp] = inclusive;
    A before = __shfl_up_sync(0xffffffffu, inclusive, 1);
    if (lane == 0) before = 0;
    __syncthreads();  // the other half of `warps` is read by nobody any more
    A all = carry;
#pragma unroll
    for (int w = 0; w < kWarps; ++w) {
      if (w == warp) before += all;
      all += warps[turn][w];
    }
    carry = all;
#pragma unroll
    for (int k = 0; k < kTakes; ++k)
      if (begin + k < v.extent) y[line.first + (begin + k) * line.step] = S::to(before + (v.exclusive ? sums[k] : sums[k + 1]));
  }
}

constexpr std::int64_t kManyLines = 1 << 15, kShortLine = 64;

template <typename T>
void launch(const CumSumView& v, const void* from, void* to, cudaStream_t stream) {
  const auto* x = static_cast<const T*>(from);
  auto* y = static_cast<T*>(to);
  if (v.lines >= kManyLines || v.extent <= kShortLine)
    start_kernel(stream, sum_lines<T>, grid_for(v.lines, kThreads), kThreads, 0, v, x, y);
  else start_kernel(stream, sum_tiles<T>, static_cast<unsigned>(v.lines), kThreads, 0, v, x, y);
}

}  // namespace

void launch_cum_sum(const CumSumView& view, const void* x, void* y, cudaStream_t stream) {
  if (view.lines == 0 || view.extent == 0) return;
  if (view.dtype == DType::f64) return launch<double>(view, x, y, stream);
  if (is_kernel_float(view.dtype))
    return with_float_type(view.dtype, [&](auto tag) { launch<typename decltype(tag)::type>(view, x, y, stream); });
  with_integer_type(view.dtype, [&](auto tag) { launch<typename decltype(tag)::type>(view, x, y, stream); });
}

}  // namespace tandem::cuda
