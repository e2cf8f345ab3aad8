// Up to 16 rows times a packed matrix (PackedRows), at the speed of memory. The warps of a block, and the blocks of a cluster, share the k
// of their columns. Each warp keeps a queue of its own words under way to shared memory and waits for nobody before its sums are whole;
// the queue fills before the kernel waits for the one before it, so that reading goes on from kernel to kernel.
//
// Sums over k may be made in any order, so a lane's 8 neighbours of a row of x and of a column of b serve as its pairs of two
// instructions.
#pragma once

#include "device/cuda/dependent.cuh"
#include "ops/cluster_cuda.cuh"
#include "ops/matmul/finish_cuda.cuh"
#include "ops/matmul/packed_rows_cuda.h"
#include "ops/quantize/codes_cuda.cuh"
#include "ops/tensor_cores_cuda.cuh"

namespace tandem::cuda {

inline constexpr int kPackedThreads = 32 * kPackedWarps;
inline constexpr int kWordBytes = 512;        // of a warp
inline constexpr int kBatchWords = 4;         // of a warp, that are waited for at once
inline constexpr int kMostShared = 99 << 10;  // so much the smallest GPU gives a block; Hopper two

using PackedWords = Vector<unsigned, 4>;

// A queue for words as `Format` has them (T: of x; kUnits of a word, kWords of a chunk; pairs_of(word, unit, offset, pairs) gives the
// lane's four pairs of a unit), where kGroups groups of rows of b in each chunk have scales of their own; 0: sums are scaled last.
template <typename Format, int kGroups_>
struct PackedQueue {
  static constexpr int kGroups = kGroups_, kUnits = Format::kUnits * Format::kWords;  // of a chunk
  static constexpr int kTiles = kBatchWords / Format::kWords;                         // of a batch
  static constexpr int kScaleBytes = kGroups * kScaleColumns * static_cast<int>(sizeof(float));
  static constexpr int kBatchBytes = kBatchWords * kWordBytes + kScaleBytes;
  static constexpr int kFits = kMostShared / (kPackedWarps * kBatchBytes), kBatches = kFits < 12 ? kFits : 12;
  static constexpr int kBytes = kPackedWarps * kBatches * kBatchBytes;
  static_assert(kGroups == 0 || kTiles * kTileColumns == kScaleColumns);

  const PackedRows& p;
  unsigned char* memory;  // of this warp
  int first_tile, tiles;  // of the block
  int chunk, step, left;  // of the next batch; between chunks of this warp; batches to come
  int tile = 0, slot = 0;

  __device__ __forceinline__ const unsigned char* front() const { return memory + slot * kBatchBytes; }

  // One more batch, where the one at the front was: a group of copies in any case, so that the number to wait for stays the same.
  __device__ __forceinline__ void start_next() {
    if (left > 0) {
      const int lane = threadIdx.x % 32;
      const unsigned to = shared_address(front());
#pragma unroll
      for (int t = 0; t < kTiles; ++t) {
        const int at = first_tile + tile + t;
        const bool real = at * kTileColumns < p.n;
        const std::int64_t word = (std::int64_t{real ? at : 0} * p.chunks + chunk) * Format::kWords * 32 + lane;
#pragma unroll
        for (int w = 0; w < Format::kWords; ++w)
          copy_beside(to + (t * Format::kWords + w) * kWordBytes + lane * 16, static_cast<const PackedWords*>(p.words) + word + 32 * w,
                      real ? 16 : 0);
      }
      if constexpr (kGroups > 0) {
        const int group = kGroups == 1 ? chunk / p.chunks_of_group : chunk * kGroups;
        const std::int64_t row = std::int64_t{(first_tile + tile) / kTiles} * p.scale_groups + group;
        const bool real = (first_tile + tile) * kTileColumns < p.n;
        if (lane < 8 * kGroups)
          copy_beside(to + kBatchWords * kWordBytes + lane * 16, p.block_scales + (real ? row * kScaleColumns + 4 * lane : 0),
                      real ? 16 : 0);
      }
      tile += kTiles;
      if (tile == tiles) tile = 0, chunk += step;
      --left;
    }
    end_copies();
    if (++slot == kBatches) slot = 0;
  }
};

// This lane's words of rows lane/4 and lane/4 + 8 of x, of the units of a chunk.
template <int kUnits>
__device__ __forceinline__ void load_units(const PackedRows& p, int chunk, PackedWords (&x)[kUnits][2]) {
  const int high = threadIdx.x % 32 / 4, low = threadIdx.x % 4;
#pragma unroll
  for (int u = 0; u < kUnits; ++u) {
    const int k = (chunk * kUnits + u) * kUnitDepth + 8 * low;
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const int row = high + 8 * r;
      x[u][r] = PackedWords{};
      if (row < p.m && k < p.depth)
        x[u][r] = *reinterpret_cast<const PackedWords*>(static_cast<const std::uint16_t*>(p.x) + std::int64_t{row} * p.pitch + k);
    }
  }
}

// Adds the products of the batch at the front to `sums`, those of its tiles.
template <typename Format, typename Queue>
__device__ __forceinline__ void add_batch(const Queue& queue, const PackedWords (&x)[Queue::kUnits][2], float (*sums)[4]) {
  constexpr int kTiles = Queue::kTiles, kGroups = Queue::kGroups;
  const int lane = threadIdx.x % 32;
  const unsigned char* front = queue.front();
  PackedWords words[kBatchWords];
#pragma unroll
  for (int i = 0; i < kBatchWords; ++i) words[i] = *reinterpret_cast<const PackedWords*>(front + i * kWordBytes + lane * 16);
  float of_group[kTiles][4] = {};
#pragma unroll
  for (int u = 0; u < Queue::kUnits; ++u) {
    unsigned pairs[kTiles][4];
#pragma unroll
    for (int t = 0; t < kTiles; ++t)
      Format::pairs_of(words[t * Format::kWords + u / Format::kUnits], u % Format::kUnits, queue.p.offset, pairs[t]);
#pragma unroll
    for (int step = 0; step < 4; step += 2) {
      const unsigned a[4] = {x[u][0].at[step], x[u][1].at[step], x[u][0].at[step + 1], x[u][1].at[step + 1]};
#pragma unroll
      for (int t = 0; t < kTiles; ++t)
        multiply_fragments<typename Format::T>(kGroups == 0 ? sums[t] : of_group[t], a, pairs[t][step], pairs[t][step + 1]);
    }
    if constexpr (kGroups > 0) {
      constexpr int kEach = Queue::kUnits / kGroups;
      if ((u + 1) % kEach != 0) continue;
      const auto* scales = reinterpret_cast<const float*>(front + kBatchWords * kWordBytes) + u / kEach * kScaleColumns + 2 * (lane % 4);
#pragma unroll
      for (int t = 0; t < kTiles; ++t) {
        const float2 s = *reinterpret_cast<const float2*>(scales + t * kTileColumns);
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          sums[t][i] += of_group[t][i] * (i % 2 == 0 ? s.x : s.y);
          of_group[t][i] = 0;
        }
      }
    }
  }
}

// All that is read is under way before the first of it is used.
template <typename T>
__device__ __forceinline__ void finish_columns(const PackedRows& p, int row, int column, const float4& sum) {
  const std::int64_t at = std::int64_t{row} * p.n + column;
  float y[4] = {sum.x, sum.y, sum.z, sum.w}, scale[4], bias[4] = {}, residual[4] = {};
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const bool real = column + i < p.n;
    scale[i] = p.scale && real ? float_at(p.scale_type, p.scale, std::int64_t{column + i} * p.scale_column) : 1.0f;
    if (p.bias && real) bias[i] = to_float(static_cast<const T*>(p.bias)[column + i]);
    if (p.residual && real) residual[i] = to_float(static_cast<const T*>(p.residual)[at + i]);
  }
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    y[i] = activate_for<T>(p.activation, y[i] * scale[i] + bias[i]) + residual[i];
    if (column + i < p.n) static_cast<T*>(p.y)[at + i] = from_float<T>(y[i]);
  }
}

// Adds what warps and blocks have for the columns from `column0` on, and finishes them: first the warps of each block, then of each cluster
// every block some columns.
template <typename T, int kTiles>
__device__ __forceinline__ void finish_block(const PackedRows& p, int column0, const float (&sums)[kTiles][4], float* shared) {
  constexpr int kColumns = kTiles * kTileColumns, kRow = kColumns + 8;  // so that 4 rows of 8 bytes lie in different banks
  const int warp = threadIdx.x / 32, high = threadIdx.x % 32 / 4, low = threadIdx.x % 4;
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    if (high + 8 * r >= p.m) continue;
    float* row = shared + (warp * kPackedRows + high + 8 * r) * kRow + 2 * low;
#pragma unroll
    for (int t = 0; t < kTiles; ++t) *reinterpret_cast<float2*>(row + t * kTileColumns) = make_float2(sums[t][2 * r], sums[t][2 * r + 1]);
  }
  __syncthreads();
  const auto add = [](float4& sum, const float4& x) { sum.x += x.x, sum.y += x.y, sum.z += x.z, sum.w += x.w; };
  const int quads = kColumns / 4, count = p.m * quads;
  for (int i = threadIdx.x; i < count; i += kPackedThreads) {
    float* at = shared + i / quads * kRow + i % quads * 4;
    float4 sum = *reinterpret_cast<const float4*>(at);
#pragma unroll
    for (int w = 1; w < kPackedWarps; ++w) add(sum, *reinterpret_cast<const float4*>(at + w * kPackedRows * kRow));
    if (p.cluster == 1) finish_columns<T>(p, i / quads, column0 + i % quads * 4, sum);
    else *reinterpret_cast<float4*>(at) = sum;
  }
  if (p.cluster == 1) return;
  wait_for_cluster();
  const int rank = static_cast<int>(blockIdx.x) % p.cluster;
  for (int i = rank * kPackedThreads + static_cast<int>(threadIdx.x); i < count; i += p.cluster * kPackedThreads) {
    const auto* at = reinterpret_cast<const float4*>(shared + i / quads * kRow + i % quads * 4);
    float4 sum = read_cluster(at, 0);
    for (int r = 1; r < p.cluster; ++r) add(sum, read_cluster(at, r));
    finish_columns<T>(p, i / quads, column0 + i % quads * 4, sum);
  }
  wait_for_cluster();  // others read this block's memory until then
}

template <typename Format, int kGroups, int kTiles>
__global__ void __launch_bounds__(kPackedThreads, 2) packed_rows(const __grid_constant__ PackedRows p) {
  using Queue = PackedQueue<Format, kGroups>;
  static_assert(kTiles % Queue::kTiles == 0);
  static_assert(kPackedWarps * kPackedRows * (kTiles * kTileColumns + 8) * static_cast<int>(sizeof(float)) <= Queue::kBytes);
  extern __shared__ uint4 packed_memory[];
  auto* memory = reinterpret_cast<unsigned char*>(packed_memory);
  let_next_begin();
  if (!p.resident) wait_for_previous();
  const int warp = threadIdx.x / 32, first_tile = static_cast<int>(blockIdx.x) / p.cluster * kTiles;
  const int first = static_cast<int>(blockIdx.x) % p.cluster * kPackedWarps + warp, step = p.cluster * kPackedWarps;
  const int chunks = first < p.chunks ? (p.chunks - first + step - 1) / step : 0;  // of this warp
  Queue queue = {
      p, memory + warp * Queue::kBatches * Queue::kBatchBytes, first_tile, kTiles, first, step, chunks * (kTiles / Queue::kTiles)};
#pragma unroll 1
  for (int i = 0; i < Queue::kBatches; ++i) queue.start_next();
  wait_for_previous();

  float sums[kTiles][4] = {};
  PackedWords x[Queue::kUnits][2], next[Queue::kUnits][2];
  load_units(p, first, x);
#pragma unroll 1
  for (int i = 0; i < chunks; ++i) {
    load_units(p, first + (i + 1) * step, next);
    __syncwarp();  // ptxas would move the loads behind this chunk's work
#pragma unroll
    for (int t = 0; t < kTiles; t += Queue::kTiles) {
      wait_for_copies_but<Queue::kBatches - 1>();
      if constexpr (kGroups > 0) __syncwarp();  // scales are copied by other lanes
      add_batch<Format>(queue, x, sums + t);
      if constexpr (kGroups > 0) __syncwarp();
      queue.start_next();
    }
#pragma unroll
    for (int u = 0; u < Queue::kUnits; ++u) x[u][0] = next[u][0], x[u][1] = next[u][1];
  }
  wait_for_copies_but<0>();
  __syncthreads();  // the queues' memory is used again
  finish_block<typename Format::T>(p, first_tile * kTileColumns, sums, reinterpret_cast<float*>(memory));
}

// On the current GPU, before it is launched.
template <typename Format, int kGroups, int kTiles>
cudaError_t allow_packed_rows() {
  const auto kernel = packed_rows<Format, kGroups, kTiles>;
  constexpr int kBytes = PackedQueue<Format, kGroups>::kBytes;
  if (const cudaError_t status = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kBytes); status != cudaSuccess)
    return status;
  return cudaFuncSetAttribute(kernel, cudaFuncAttributePreferredSharedMemoryCarveout, cudaSharedmemCarveoutMaxShared);
}

template <typename Format, int kGroups, int kTiles>
void start_packed_rows(const PackedRows& p, Start start) {
  start.cluster = static_cast<unsigned>(p.cluster);
  const unsigned blocks = grid_for(p.n, kTiles * kTileColumns) * start.cluster;
  start_kernel(start, packed_rows<Format, kGroups, kTiles>, blocks, kPackedThreads, PackedQueue<Format, kGroups>::kBytes, p);
}

}  // namespace tandem::cuda
