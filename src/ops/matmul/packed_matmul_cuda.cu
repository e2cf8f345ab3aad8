#include "device/cuda/dependent.cuh"
#include "ops/matmul/packed_matmul_cuda.h"
#include "ops/matmul/packed_rows_cuda.cuh"

namespace tandem::cuda {
namespace {

// b as it is.
template <typename T_>
struct Plain {
  using T = T_;
  static constexpr int kUnits = 1, kWords = 2;

  static __device__ __forceinline__ void pairs_of(const PackedWords& word, int, int, unsigned (&pairs)[4]) {
#pragma unroll
    for (int i = 0; i < 4; ++i) pairs[i] = word.at[i];
  }
};
static_assert(Plain<__half>::kUnits * Plain<__half>::kWords * kUnitDepth == kMatMulChunk);

// Calls `work` with tiles as a constant, and a format.
template <typename Work>
void with_kernel(DType dtype, int tiles, const Work& work) {
  const auto with_type = [&](auto format) {
    if (tiles == 4) work(format, std::integral_constant<int, 4>());
    else if (tiles == 8) work(format, std::integral_constant<int, 8>());
    else if (tiles == 12) work(format, std::integral_constant<int, 12>());
    else if (tiles == 14) work(format, std::integral_constant<int, 14>());
    else work(format, std::integral_constant<int, 16>());
  };
  if (dtype == DType::f16) with_type(Plain<__half>());
  else with_type(Plain<__nv_bfloat16>());
}

constexpr int kThreads = 256;

// A lane's word of b, a thread each. Warps of a block have neighbouring tiles, so that they share the lines that they read.
template <int kBits>
__global__ void __launch_bounds__(kThreads) pack_tiles(const void* b, PackedWords* words, std::int64_t k, std::int64_t n, int words_of_tile,
                                                       std::int64_t tile_blocks, unsigned flip) {
  constexpr int kElements = 128 / kBits, kPerWord = 32 / kBits;
  const int lane = threadIdx.x % 32;
  const std::int64_t step = blockIdx.x / tile_blocks, tile = blockIdx.x % tile_blocks * (kThreads / 32) + threadIdx.x / 32;
  const std::int64_t column = tile * kTileColumns + lane / 4;
  if (tile * kTileColumns >= n) return;
  PackedWords word = {};
#pragma unroll
  for (int i = 0; i < kElements; ++i) {
    const std::int64_t row = step * 4 * kElements + i / 8 * kUnitDepth + 8 * (lane % 4) + i % 8;
    unsigned code = 0;
    if (row < k && column < n) {
      const std::int64_t at = row * n + column;
      if constexpr (kBits == 16) code = static_cast<const std::uint16_t*>(b)[at];
      else if constexpr (kBits == 8) code = static_cast<const std::uint8_t*>(b)[at];
      else code = static_cast<const std::uint8_t*>(b)[at / 2] >> (at % 2 * 4) & 15u;
    }
    // Of nibbles those of a pair lie 16 bits apart, so that a pair is taken out at once.
    const int place = kBits == 4 ? i % 8 / 2 + i % 2 * 4 : i % kPerWord;
    word.at[i / kPerWord] |= (code ^ flip) << (kBits * place);
  }
  words[(tile * words_of_tile + step) * 32 + lane] = word;
}

__global__ void __launch_bounds__(kThreads) align_rows(const std::uint16_t* x, std::uint16_t* to, int m, int k, int pitch) {
  begin_dependent();
  for (int i = static_cast<int>(blockIdx.x) * kThreads + static_cast<int>(threadIdx.x); i < m * pitch;
       i += static_cast<int>(gridDim.x) * kThreads) {
    const int row = i / pitch, column = i % pitch;
    to[i] = column < k ? x[std::int64_t{row} * k + column] : std::uint16_t{0};
  }
}

}  // namespace

cudaError_t prepare_packed_matmul(DType dtype, int tiles) {
  cudaError_t status = cudaSuccess;
  with_kernel(dtype, tiles, [&](auto format, auto count) { status = allow_packed_rows<decltype(format), 0, count>(); });
  return status;
}

void launch_packed_matmul(DType dtype, int tiles, const PackedRows& p, const Start& start) {
  with_kernel(dtype, tiles, [&](auto format, auto count) { start_packed_rows<decltype(format), 0, count>(p, start); });
}

void launch_pack_tiles(const void* b, void* words, int bits, std::int64_t k, std::int64_t n, int words_of_tile, unsigned flip,
                       cudaStream_t stream) {
  const std::int64_t tile_blocks = grid_for(n, kTileColumns * (kThreads / 32));
  const auto kernel = bits == 16 ? pack_tiles<16> : bits == 8 ? pack_tiles<8> : pack_tiles<4>;
  start_kernel(stream, kernel, grid_for(tile_blocks * words_of_tile, 1), kThreads, 0, b, static_cast<PackedWords*>(words), k, n,
               words_of_tile, tile_blocks, flip);
}

void launch_align_rows(const void* x, void* to, int m, int k, int pitch, const Start& start) {
  start_kernel(start, align_rows, std::min(grid_for(std::int64_t{m} * pitch, kThreads), 512u), kThreads, 0,
               static_cast<const std::uint16_t*>(x), static_cast<std::uint16_t*>(to), m, k, pitch);
}

}  // namespace tandem::cuda
