// One row times a matrix that is stored by columns, at the speed of memory. A column is shared by several warps, so that all loads of a
// warp go out at once; they go out before the kernel waits for the one before it, so that reading goes on from kernel to kernel.
#include "device/cuda/dependent.cuh"
#include "device/cuda/memory.cuh"
#include "ops/matmul/finish_cuda.cuh"
#include "ops/matmul/packed_matvec_cuda.h"

namespace tandem::cuda {
namespace {

constexpr int kThreads = 256, kWarps = kThreads / 32;
constexpr int kTile = 64;

using Words = Vector<unsigned, 4>;  // eight elements

__device__ __forceinline__ Words stream_load(const Words* from) {
  const uint4 words = load_once(from);
  return {words.x, words.y, words.z, words.w};
}

// x may begin anywhere.
template <typename T>
__device__ __forceinline__ Words load_row(const T* x, int vector) {
  if (reinterpret_cast<std::uintptr_t>(x) % 16 == 0) return reinterpret_cast<const Words*>(x)[vector];
  const auto* at = reinterpret_cast<const std::uint16_t*>(x) + 8 * vector;
  Words w;
#pragma unroll
  for (int i = 0; i < 4; ++i) w.at[i] = at[2 * i] | static_cast<unsigned>(at[2 * i + 1]) << 16;
  return w;
}

template <typename T>
__device__ __forceinline__ float2 pair_of(unsigned word);
template <>
__device__ __forceinline__ float2 pair_of<__half>(unsigned word) {
  __half2 pair;
  memcpy(&pair, &word, sizeof pair);
  return __half22float2(pair);
}
template <>
__device__ __forceinline__ float2 pair_of<__nv_bfloat16>(unsigned word) {
  return {__uint_as_float(word << 16), __uint_as_float(word & 0xffff0000u)};
}

template <typename T>
__device__ __forceinline__ float product(const Words& a, const Words& b, float sum) {
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const float2 x = pair_of<T>(a.at[i]), y = pair_of<T>(b.at[i]);
    sum += x.x * y.x;
    sum += x.y * y.y;
  }
  return sum;
}

// `split` warps share each column, of which a warp has kColumns; kLoads of 16 bytes of each are under way in every lane.
template <typename T, int kLoads, int kColumns, int kBlocks>
__global__ void __launch_bounds__(kThreads, kBlocks) packed_matvec(const __grid_constant__ PackedMatVec p, int split) {
  let_next_begin();
  if (!p.resident) wait_for_previous();
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, part = warp % split;
  const int column = (static_cast<int>(blockIdx.x) * (kWarps / split) + warp / split) * kColumns, vectors = p.k / 8;
  const T* x = static_cast<const T*>(p.x);
  float sums[kColumns] = {};
  bool waited = false;
  for (int first = part * 32 * kLoads; first < vectors; first += split * 32 * kLoads) {
    Words b[kColumns][kLoads];
#pragma unroll
    for (int c = 0; c < kColumns; ++c) {
      const Words* from = static_cast<const Words*>(p.packed) + std::int64_t{min(column + c, p.n - 1)} * vectors + first + lane;
#pragma unroll
      for (int i = 0; i < kLoads; ++i) {
        b[c][i] = Words{};
        if (first + lane + 32 * i < vectors) b[c][i] = stream_load(from + 32 * i);
      }
    }
    if (!waited) wait_for_previous();
    waited = true;
#pragma unroll
    for (int i = 0; i < kLoads; ++i) {
      Words a{};
      if (first + lane + 32 * i < vectors) a = load_row(x, first + lane + 32 * i);
#pragma unroll
      for (int c = 0; c < kColumns; ++c) sums[c] = product<T>(a, b[c][i], sums[c]);
    }
  }
  if (!waited) wait_for_previous();

  __shared__ float shared[kWarps][kColumns];
#pragma unroll
  for (int c = 0; c < kColumns; ++c) {
    for (int distance = 16; distance > 0; distance /= 2) sums[c] += __shfl_xor_sync(0xffffffff, sums[c], distance);
    if (lane == 0) shared[warp][c] = sums[c];
  }
  __syncthreads();
  const int at = column + lane;
  if (part != 0 || lane >= kColumns || at >= p.n) return;
  float sum = 0;
  for (int w = 0; w < split; ++w) sum += shared[warp + w][lane];
  if (p.bias) sum += to_float(static_cast<const T*>(p.bias)[at]);
  sum = activate_for<T>(p.activation, sum);
  if (p.residual) sum += to_float(static_cast<const T*>(p.residual)[at]);
  static_cast<T*>(p.y)[at] = from_float<T>(sum);
}

__global__ void __launch_bounds__(kThreads)
    pack_columns(const std::uint16_t* b, std::uint16_t* packed, std::int64_t k, std::int64_t n, std::int64_t row_tiles) {
  __shared__ std::uint16_t tile[kTile][kTile + 2];
  const std::int64_t row0 = blockIdx.x % row_tiles * kTile, column0 = blockIdx.x / row_tiles * kTile;
  const int x = threadIdx.x % kTile;
  for (int y = threadIdx.x / kTile; y < kTile; y += kThreads / kTile)
    if (row0 + y < k && column0 + x < n) tile[y][x] = b[(row0 + y) * n + column0 + x];
  __syncthreads();
  for (int y = threadIdx.x / kTile; y < kTile; y += kThreads / kTile)
    if (row0 + x < k && column0 + y < n) packed[(column0 + y) * k + row0 + x] = tile[x][y];
}

template <typename T, int kLoads, int kColumns, int kBlocks>
void launch(const PackedMatVec& p, int split, const Start& start) {
  start_kernel(start, packed_matvec<T, kLoads, kColumns, kBlocks>, grid_for(p.n, kWarps / split * kColumns), kThreads, 0, p, split);
}

}  // namespace

// All that a warp has of its columns is under way at once where eight warps share a column of 4096 elements.
void launch_packed_matvec(DType dtype, const PackedMatVec& p, const Start& start) {
  const int vectors = p.k / 8;
  const auto with_type = [&](auto tag) {
    using T = typename decltype(tag)::type;
    int split = 1;
    while (split < kWarps && split * 2 * 32 < vectors) split *= 2;
    if (vectors <= kWarps * 2 * 32) launch<T, 2, 4, 3>(p, split, start);
    else launch<T, 4, 2, 3>(p, kWarps, start);
  };
  if (dtype == DType::f16) with_type(Tag<__half>());
  else with_type(Tag<__nv_bfloat16>());
}

void launch_pack_columns(const void* b, void* packed, std::int64_t k, std::int64_t n, cudaStream_t stream) {
  const std::int64_t row_tiles = (k + kTile - 1) / kTile, column_tiles = (n + kTile - 1) / kTile;
  start_kernel(stream, pack_columns, grid_for(row_tiles * column_tiles, 1), kThreads, 0, static_cast<const std::uint16_t*>(b),
               static_cast<std::uint16_t*>(packed), k, n, row_tiles);
}

}  // namespace tandem::cuda
