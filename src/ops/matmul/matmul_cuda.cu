#include "device/cuda/dependent.cuh"
#include "ops/matmul/finish_cuda.cuh"
#include "ops/matmul/matmul_cuda.h"

namespace tandem::cuda {
namespace {

constexpr int kTile = 64, kDepth = 16, kThreads = 256, kEach = 4;  // a block makes a tile of c, a thread 4 × 4 of it
constexpr unsigned kMostBatches = 65535;

template <typename T>
struct MatMulArgs {
  const T *a, *b, *bias, *residual;
  T* c;
  MatMulShape shape;
  Activation activation;
};

// Rows first … of a [rows, columns] matrix, columns from `from` on, into a tile; zeros outside. kAcross: the tile is stored transposed.
template <bool kAcross, typename T, typename A, int kRows, int kColumns, int kWidth>
__device__ __forceinline__ void load_tile(const T* matrix, std::int64_t rows, std::int64_t columns, std::int64_t first, std::int64_t from,
                                          A (&tile)[kWidth][kTile + 1]) {
#pragma unroll
  for (int i = threadIdx.x; i < kRows * kColumns; i += kThreads) {
    const int row = i / kColumns, column = i % kColumns;
    const bool inside = first + row < rows && from + column < columns;
    const A x = inside ? Arithmetic<T>::load(matrix[(first + row) * columns + from + column]) : A{0};
    if constexpr (kAcross) tile[column][row] = x;
    else tile[row][column] = x;
  }
}

template <typename T>
__global__ void __launch_bounds__(kThreads) matmul(MatMulArgs<T> p, std::int64_t first_batch, unsigned row_tiles) {
  begin_dependent();
  using A = typename Arithmetic<T>::type;
  __shared__ A a_tile[kDepth][kTile + 1], b_tile[kDepth][kTile + 1];
  const MatMulShape& s = p.shape;
  const std::int64_t batch = first_batch + blockIdx.y;
  const std::int64_t row0 = std::int64_t{blockIdx.x % row_tiles} * kTile, column0 = std::int64_t{blockIdx.x / row_tiles} * kTile;
  const T *a = p.a + batch * s.a_stride, *b = p.b + batch * s.b_stride;
  const int x = threadIdx.x % 16, y = threadIdx.x / 16;
  A sums[kEach][kEach] = {};
  for (std::int64_t k = 0; k < s.k; k += kDepth) {
    load_tile<true, T, A, kTile, kDepth>(a, s.m, s.k, row0, k, a_tile);
    load_tile<false, T, A, kDepth, kTile>(b, s.k, s.n, k, column0, b_tile);
    __syncthreads();
#pragma unroll
    for (int d = 0; d < kDepth; ++d) {
      A left[kEach], right[kEach];
#pragma unroll
      for (int i = 0; i < kEach; ++i) left[i] = a_tile[d][y + 16 * i], right[i] = b_tile[d][x + 16 * i];
#pragma unroll
      for (int i = 0; i < kEach; ++i)
#pragma unroll
        for (int j = 0; j < kEach; ++j) sums[i][j] += left[i] * right[j];
    }
    __syncthreads();
  }
#pragma unroll
  for (int i = 0; i < kEach; ++i)
#pragma unroll
    for (int j = 0; j < kEach; ++j) {
      const std::int64_t row = row0 + y + 16 * i, column = column0 + x + 16 * j;
      if (row >= s.m || column >= s.n) continue;
      const std::int64_t at = (batch * s.m + row) * s.n + column;
      A sum = sums[i][j];
      if (p.bias) sum += Arithmetic<T>::load(p.bias[column]);
      sum = activate_for<T>(p.activation, sum);
      if (p.residual) sum += Arithmetic<T>::load(p.residual[at]);
      p.c[at] = Arithmetic<T>::store(sum);
    }
}

}  // namespace

void launch_matmul(DType dtype, Activation activation, const MatMulShape& shape, const void* a, const void* b, const void* bias,
                   const void* residual, void* c, const Start& start) {
  if (shape.m == 0 || shape.n == 0) return;
  const unsigned row_tiles = grid_for(shape.m, kTile);
  const unsigned tiles = grid_for(std::int64_t{row_tiles} * grid_for(shape.n, kTile), 1);
  with_number_type(dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    const MatMulArgs<T> args = {static_cast<const T*>(a),
                                static_cast<const T*>(b),
                                static_cast<const T*>(bias),
                                static_cast<const T*>(residual),
                                static_cast<T*>(c),
                                shape,
                                activation};
    for (std::int64_t first = 0; first < shape.batch; first += kMostBatches) {
      const auto batches = static_cast<unsigned>(std::min<std::int64_t>(kMostBatches, shape.batch - first));
      start_kernel(start, matmul<T>, dim3(tiles, batches), kThreads, 0, args, first, row_tiles);
    }
  });
}

}  // namespace tandem::cuda
