// Products of up to 16 rows with a matrix that is kept in the order in which tensor cores take it, as launch functions see them: what
// MatMul and DequantMatMul share.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>
#include <span>

#include "device/cuda/start.h"
#include "ops/matmul/activation.h"
#include "tandem/types.h"

namespace tandem::cuda {

inline constexpr int kPackedRows = 16;                // the most rows
inline constexpr int kTileColumns = 8;                // of b, that one instruction takes
inline constexpr int kUnitDepth = 32;                 // rows of b: what a lane's 16 bytes of a row of x serve for
inline constexpr int kPackedWarps = 4;                // of a block; each has every so many-th chunk of k
inline constexpr int kMostCluster = 8;                // blocks that share the k of their columns
inline constexpr int kScaleColumns = 32;              // whose scales of one group lie side by side
inline constexpr std::int64_t kPackedMost = 1 << 26;  // of n and k

// y = activation((x·b)·scale + bias) + residual, x [m, pitch] and the result of 16-bit floats, sums in f32 in one order.
//
// b is in words of 16 bytes. A tile has kTileColumns columns and `chunks` chunks of k, a chunk as many words for each of 32 lanes as its
// format says (two of floats, else one). Each kUnitDepth rows of b are a unit: of it lane 4·h + l has column h of the tile, rows
// 8·l … 8·l+7, in 16 bytes of floats, 8 of bytes or 4 of nibbles. What is past k and n is zero.
struct PackedRows {
  const void *x, *words, *bias, *residual;  // x and rows of it begin at multiples of 16 bytes; bias and residual may be null
  const void* scale;                        // of columns; null: none
  const float* block_scales;                // [⌈tiles/4⌉, scale_groups, kScaleColumns], of rows of b that share one; null: none
  void* y;
  int m, n, depth, pitch;  // depth: k, up to a multiple of 8 at most; x is zero from k on
  int chunks, scale_groups, chunks_of_group;
  int offset;  // that codes carry: what is stored less that is what is meant
  int scale_column;
  DType scale_type;
  Activation activation;
  int cluster;    // blocks that share the k of their columns
  bool resident;  // b may be read before what precedes the launch has ended
};

// How a product is cut: tiles of a block, and blocks of a cluster.
struct PackedCut {
  int tiles = 0, cluster = 1;
};
struct PackedSize {
  std::int64_t n, chunks;
  std::int64_t tile_bytes, x_bytes;  // of one chunk
};
// The one that should take least time, of those that there are kernels for. `clusters`: whether the GPU has them.
PackedCut packed_cut(const PackedSize& size, std::span<const int> tiles, int multiprocessors, bool clusters);

// x [m,k] of 16-bit floats to rows of `pitch` elements, zeros past k.
void launch_align_rows(const void* x, void* to, int m, int k, int pitch, const Start& start);

// b [k,n] of 16, 8 or 4 bits into words as above, so many of each lane and tile. Of every code the bits of `flip` change.
void launch_pack_tiles(const void* b, void* words, int bits, std::int64_t k, std::int64_t n, int words_of_tile, unsigned flip,
                       cudaStream_t stream);

}  // namespace tandem::cuda
