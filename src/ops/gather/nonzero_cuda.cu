// Three launches: what each tile has is counted, one block turns counts into places, and each tile writes from its place on. The order is
// that of the elements whatever ran first.
#include "device/cuda/dependent.cuh"
#include "ops/gather/nonzero_cuda.h"
#include "ops/types_cuda.cuh"

namespace tandem::cuda {
namespace {

constexpr int kThreads = 256, kWarps = kThreads / 32, kRounds = kNonZeroTile / kThreads;  // a round of a warp: 32 neighbours
constexpr int kScanThreads = 1024;

// The lanes with an element that is not zero, in each round of this warp.
template <typename U>
__device__ __forceinline__ void find(const NonZeroLaunch& v, const U* __restrict__ x, std::int64_t first, unsigned (&lanes)[kRounds]) {
  const U mask = static_cast<U>(v.mask);
#pragma unroll
  for (int r = 0; r < kRounds; ++r) {
    const std::int64_t i = first + r * 32 + threadIdx.x % 32;
    lanes[r] = __ballot_sync(0xffffffffu, i < v.count && (x[i] & mask) != 0);
  }
}

// Each warp has a run of its tile to itself.
__device__ __forceinline__ std::int64_t first_of_warp() {
  return std::int64_t{blockIdx.x} * kNonZeroTile + threadIdx.x / 32 * (kRounds * 32);
}

__device__ __forceinline__ int total(const unsigned (&lanes)[kRounds]) {
  int sum = 0;
#pragma unroll
  for (int r = 0; r < kRounds; ++r) sum += __popc(lanes[r]);
  return sum;
}

template <typename U>
__global__ void __launch_bounds__(kThreads) count_nonzero(NonZeroLaunch v, const U* __restrict__ x, std::int64_t* __restrict__ counts) {
  __shared__ int warps[kWarps];
  unsigned lanes[kRounds];
  find(v, x, first_of_warp(), lanes);
  if (threadIdx.x % 32 == 0) warps[threadIdx.x / 32] = total(lanes);
  __syncthreads();
  if (threadIdx.x != 0) return;
  int sum = 0;
  for (int w = 0; w < kWarps; ++w) sum += warps[w];
  counts[blockIdx.x] = sum;
}

// Counts become the sums of those before them; `found` is the sum of all.
__global__ void __launch_bounds__(kScanThreads) scan_counts(std::int64_t tiles, std::int64_t* counts, std::int64_t* found) {
  __shared__ std::int64_t warps[kScanThreads / 32];
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  std::int64_t carry = 0;
  for (std::int64_t first = 0; first < tiles; first += kScanThreads) {
    const std::int64_t i = first + threadIdx.x;
    const long long own = i < tiles ? counts[i] : 0;
    long long sum = own;
#pragma unroll
    for (int distance = 1; distance < 32; distance *= 2) {
      const long long other = __shfl_up_sync(0xffffffffu, sum, distance);
      if (lane >= distance) sum += other;
    }
    if (lane == 31) warps[warp] = sum;
    __syncthreads();
    std::int64_t before = carry, all = carry;
    for (int w = 0; w < kScanThreads / 32; ++w) {
      if (w == warp) before = all;
      all += warps[w];
    }
    if (i < tiles) counts[i] = before + sum - own;
    carry = all;
    __syncthreads();  // `warps` is read by nobody any more
  }
  if (threadIdx.x == 0) *found = carry;
}

template <typename U>
__global__ void __launch_bounds__(kThreads) write_indices(NonZeroLaunch v, const U* __restrict__ x, const std::int64_t* __restrict__ starts,
                                                          const std::int64_t* __restrict__ found, std::int64_t* __restrict__ indices) {
  __shared__ unsigned rounds[kWarps][kRounds];
  __shared__ int warps[kWarps];
  const std::int64_t first = first_of_warp(), stride = *found;
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  unsigned lanes[kRounds];
  find(v, x, first, lanes);
  if (lane == 0) {
    warps[warp] = total(lanes);
#pragma unroll
    for (int r = 0; r < kRounds; ++r) rounds[warp][r] = lanes[r];
  }
  __syncthreads();
  std::int64_t at = starts[blockIdx.x];
  for (int w = 0; w < warp; ++w) at += warps[w];
#pragma unroll 1
  for (int r = 0; r < kRounds; ++r) {
    const unsigned set = rounds[warp][r];
    if (set >> lane & 1) {
      std::int64_t rest = first + r * 32 + lane;
      std::int64_t* const to = indices + at + __popc(set & ((1u << lane) - 1));
#pragma unroll
      for (int d = kNonZeroRank - 1; d >= 0; --d) {
        if (d >= v.rank) continue;
        to[d * stride] = rest % v.extents[d];
        rest /= v.extents[d];
      }
    }
    at += __popc(set);
  }
}

}  // namespace

void launch_nonzero(const NonZeroLaunch& v, const void* from, std::int64_t* indices, std::int64_t* found, std::int64_t* starts,
                    cudaStream_t stream) {
  const std::int64_t tiles = (v.count + kNonZeroTile - 1) / kNonZeroTile;
  with_element_bytes(v.element_bytes, [&](auto element) {
    using U = typename decltype(element)::type;
    const auto* x = static_cast<const U*>(from);
    const unsigned grid = grid_for(v.count, kNonZeroTile);
    if (grid > 0) start_kernel(stream, count_nonzero<U>, grid, kThreads, 0, v, x, starts);
    start_kernel(stream, scan_counts, 1, kScanThreads, 0, tiles, starts, found);
    if (grid > 0) start_kernel(stream, write_indices<U>, grid, kThreads, 0, v, x, starts, found, indices);
  });
}

}  // namespace tandem::cuda
