#include "ops/turned_cuda.h"

#include "device/cuda/dependent.cuh"
#include "ops/types_cuda.cuh"

namespace tandem::cuda {
namespace {

constexpr int kTile = 32, kLines = 8;

// A block of kTile × kLines threads turns a tile; the padding keeps its columns in different banks.
template <typename T>
__global__ void __launch_bounds__(kTile* kLines) turn(const T* from, T* to, std::int64_t rows, std::int64_t columns) {
  __shared__ T tile[kTile][kTile + 4 / sizeof(T)];
  const std::int64_t column_tiles = (columns + kTile - 1) / kTile;
  const std::int64_t row = std::int64_t{blockIdx.x} / column_tiles * kTile, column = std::int64_t{blockIdx.x} % column_tiles * kTile;
  const int x = threadIdx.x;
  for (int y = threadIdx.y; y < kTile; y += kLines)
    if (row + y < rows && column + x < columns) tile[y][x] = from[(row + y) * columns + column + x];
  __syncthreads();
  for (int y = threadIdx.y; y < kTile; y += kLines)
    if (column + y < columns && row + x < rows) to[(column + y) * rows + row + x] = tile[x][y];
}

template <typename T>
void launch_turn_of(const void* from, void* to, std::int64_t rows, std::int64_t columns, cudaStream_t stream) {
  const unsigned tiles = grid_for((rows + kTile - 1) / kTile * ((columns + kTile - 1) / kTile), 1);
  start_kernel(stream, turn<T>, tiles, dim3(kTile, kLines), 0, static_cast<const T*>(from), static_cast<T*>(to), rows, columns);
}

}  // namespace

void launch_turn(const void* from, void* to, std::int64_t rows, std::int64_t columns, int element_bytes, cudaStream_t stream) {
  if (rows == 0 || columns == 0) return;
  if (element_bytes == 1) launch_turn_of<std::uint8_t>(from, to, rows, columns, stream);
  else launch_turn_of<std::uint16_t>(from, to, rows, columns, stream);
}

}  // namespace tandem::cuda
