// What kernels over rows share: how many threads take a row, and reductions over them. For *_cuda.cu files.
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>
#include <type_traits>

#include "ops/types_cuda.cuh"

namespace tandem::cuda {

// A row's `vectors` are dealt to the x-threads of a block in turn, `per` to each; a block has y rows. x is a power of two up to 32, or
// whole warps, and then y is 1: what group_reduce() below expects. per = 0: the row is too long for that.
struct RowLaunch {
  int x = 1, y = 1, per = 1;
};

// Many loads per thread where rows keep the device busy, more threads per row where they do not. `most_per`: 1, 2, 4 or 8.
// `most_threads` of a row: what the kernel's registers allow.
inline RowLaunch row_launch(std::int64_t rows, std::int64_t vectors, int most_per, int most_threads, int multiprocessors) {
  constexpr int kBlock = 128;
  if (vectors > std::int64_t{most_threads} * most_per) return {.per = 0};
  const auto count = std::max(static_cast<int>(vectors), 1);
  if (count <= 32) {
    int x = 1;
    while (x < count) x *= 2;
    return {x, kBlock / x, 1};
  }
  int per = rows >= 4 * multiprocessors ? std::min(most_per, 4) : 1;
  while (per < most_per && count > most_threads * per) per *= 2;
  const int x = ((count + per - 1) / per + 31) / 32 * 32;
  while (per > 1 && x * (per / 2) >= count) per /= 2;
  return {x, x == 32 ? kBlock / x : 1, per};
}

// Calls `work` with the number, which is at most kMostPer, as a constant.
template <int kMostPer, typename Work>
void with_per(int per, const Work& work) {
  if (per == 1) work(std::integral_constant<int, 1>());
  else if (per == 2) work(std::integral_constant<int, 2>());
  else if (per == 4) work(std::integral_constant<int, 4>());
  else if constexpr (kMostPer == 8) work(std::integral_constant<int, 8>());
}

inline bool aligned_16(const void* address) { return reinterpret_cast<std::uintptr_t>(address) % 16 == 0; }

struct Add {
  static constexpr float kNothing = 0;
  __device__ float operator()(float a, float b) const { return a + b; }
};

// NaN leaves the maximum alone.
struct Larger {
  static constexpr float kNothing = -std::numeric_limits<float>::infinity();
  __device__ float operator()(float a, float b) const { return fmaxf(a, b); }
};

// Over the x-threads of a RowLaunch, to all of them. Every thread of the block takes part; `shared`, aligned to 16, is used by one
// reduction only.
template <typename Op>
__device__ __forceinline__ float group_reduce(float value, Op op, float (&shared)[32]) {
  const int group = static_cast<int>(blockDim.x);
  if (group < 32) {
    for (int step = group / 2; step > 0; step /= 2) value = op(value, __shfl_xor_sync(0xffffffff, value, step));
    return value;
  }
#pragma unroll
  for (int step = 16; step > 0; step /= 2) value = op(value, __shfl_xor_sync(0xffffffff, value, step));
  if (group == 32) return value;
  const int lane = threadIdx.x % 32;
  if (lane == 0) shared[threadIdx.x / 32] = value;
  __syncthreads();
  if (group == 128) {  // what short rows have: fewer instructions, each of which has to come first
    const float4 all = *reinterpret_cast<const float4*>(shared);
    return op(op(all.x, all.y), op(all.z, all.w));
  }
  value = lane < group / 32 ? shared[lane] : Op::kNothing;
#pragma unroll
  for (int step = 16; step > 0; step /= 2) value = op(value, __shfl_xor_sync(0xffffffff, value, step));
  return value;
}

}  // namespace tandem::cuda
