#include "device/cuda/dependent.cuh"
#include "device/cuda/registers.cuh"
#include "ops/arrivals_cuda.cuh"
#include "ops/matmul/finish_cuda.cuh"
#include "ops/matmul/matvec_cuda.h"
#include "ops/matmul/stream_cuda.cuh"

namespace tandem::cuda {
namespace {

constexpr int kWarps = 8, kThreads = 32 * kWarps;
constexpr int kFlight = 4;  // rows that a thread has under way; by way of shared memory, as the compiler would not keep registers for them

// A warp takes every kWarps-th row of b; its lanes take neighbouring columns. A thread reads only what it copied itself.
template <typename T, int kRows, int kVector>
__device__ __forceinline__ void add_rows(const MatVec& p, std::int64_t column, Vector<T, kVector> (&ring)[kFlight][kThreads],
                                         float (&sums)[kRows][kVector]) {
  const std::int64_t first = blockIdx.y * p.depth, end = first + p.depth < p.k ? first + p.depth : p.k;
  const std::int64_t row0 = first + threadIdx.x / 32, step = kWarps * p.n;
  const int count = row0 < end ? static_cast<int>((end - row0 + kWarps - 1) / kWarps) : 0;
  const T* a = static_cast<const T*>(p.a) + row0;
  const T* b = static_cast<const T*>(p.b) + row0 * p.n + column;
  const auto start = [&](int i) {
    if (i < count) start_copy<16>(&ring[i % kFlight][threadIdx.x], b + i * step);
    end_group();  // one group a row, empty past the end, so that the number to wait for stays the same
  };
#pragma unroll
  for (int i = 0; i < kFlight; ++i) start(i);
  wait_for_previous();
#pragma unroll kFlight
  for (int i = 0; i < count; ++i, a += kWarps) {
    wait_for_all_but<kFlight - 1>();
    const Vector<T, kVector> x = ring[i % kFlight][threadIdx.x];
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      const float s = to_float(a[r * p.k]);
#pragma unroll
      for (int j = 0; j < kVector; ++j) sums[r][j] += s * to_float(x.at[j]);
    }
    start(i + kFlight);
  }
  wait_for_all_but<0>();
}

template <typename T>
__device__ __forceinline__ void finish(const MatVec& p, std::int64_t row, std::int64_t column, float sum) {
  const std::int64_t at = row * p.n + column;
  if (p.bias) sum += to_float(static_cast<const T*>(p.bias)[column]);
  sum = activate_for<T>(p.activation, sum);
  if (p.residual) sum += to_float(static_cast<const T*>(p.residual)[at]);
  static_cast<T*>(p.c)[at] = from_float<T>(sum);
}

// Adds what the warps of a block have for each column and gives it to `use`.
template <int kRows, int kVector, typename Use>
__device__ __forceinline__ void across_warps(float (&shared)[kRows][kWarps][32 * kVector], const float (&sums)[kRows][kVector], int columns,
                                             const Use& use) {
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
#pragma unroll
  for (int r = 0; r < kRows; ++r)
#pragma unroll
    for (int j = 0; j < kVector; ++j) shared[r][warp][lane * kVector + j] = sums[r][j];
  __syncthreads();
  for (int i = threadIdx.x; i < kRows * 32 * kVector; i += kThreads) {
    const int r = i / (32 * kVector), column = i % (32 * kVector);
    if (column >= columns) continue;
    float sum = 0;
#pragma unroll
    for (int w = 0; w < kWarps; ++w) sum += shared[r][w][column];
    use(r, column, sum);
  }
}

// What the blocks of one column block left, a warp taking every kWarps-th.
template <int kRows, int kVector>
__device__ __forceinline__ void add_partials(const MatVec& p, std::int64_t column, float (&sums)[kRows][kVector]) {
#pragma unroll 4
  for (unsigned s = threadIdx.x / 32; s < gridDim.y; s += kWarps)
#pragma unroll
    for (int r = 0; r < kRows; ++r)
#pragma unroll
      for (int j = 0; j < kVector; j += 4) {
        const float4 x = __ldcg(reinterpret_cast<const float4*>(p.partials + (s * kRows + r) * p.n + column + j));
        sums[r][j] += x.x, sums[r][j + 1] += x.y, sums[r][j + 2] += x.z, sums[r][j + 3] += x.w;
      }
}

template <typename T, int kRows>
__global__ void __launch_bounds__(kThreads, kRoomFrom100) matvec(const __grid_constant__ MatVec p) {
  constexpr int kVector = 16 / sizeof(T), kColumns = 32 * kVector;
  union Shared {
    Vector<T, kVector> ring[kFlight][kThreads];
    float sums[kRows][kWarps][kColumns];
  };
  __shared__ __align__(16) unsigned char memory[sizeof(Shared)];
  auto& ring = reinterpret_cast<Shared*>(memory)->ring;
  auto& shared = reinterpret_cast<Shared*>(memory)->sums;
  const std::int64_t column0 = std::int64_t{blockIdx.x} * kColumns, column = column0 + threadIdx.x % 32 * kVector;
  const int columns = p.n - column0 < kColumns ? static_cast<int>(p.n - column0) : kColumns;
  const auto finished = [&](int r, int at, float sum) { finish<T>(p, r, column0 + at, sum); };

  let_next_begin();
  if (!p.b_resident) wait_for_previous();
  float sums[kRows][kVector] = {};
  if (column < p.n) add_rows(p, column, ring, sums);
  else wait_for_previous();
  __syncthreads();  // the ring's memory is used again
  if (p.splits == 1) return across_warps(shared, sums, columns, finished);
  across_warps(shared, sums, columns, [&](int r, int at, float sum) { p.partials[(blockIdx.y * kRows + r) * p.n + column0 + at] = sum; });
  if (!is_last_to_arrive(p.arrived + blockIdx.x, gridDim.y)) return;
#pragma unroll
  for (int r = 0; r < kRows; ++r)
#pragma unroll
    for (int j = 0; j < kVector; ++j) sums[r][j] = 0;
  if (column < p.n) add_partials(p, column, sums);
  across_warps(shared, sums, columns, finished);
}

template <typename T>
auto kernel_of(std::int64_t rows) {
  return rows == 1 ? matvec<T, 1> : rows == 2 ? matvec<T, 2> : rows == 3 ? matvec<T, 3> : matvec<T, 4>;
}

}  // namespace

void launch_matvec(DType dtype, const MatVec& p, const Start& start) {
  with_float_type(dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    const dim3 grid(grid_for(p.n, kMatVecColumns / static_cast<std::int64_t>(sizeof(T))), static_cast<unsigned>(p.splits));
    start_kernel(start, kernel_of<T>(p.m), grid, kThreads, 0, p);
  });
}

int matvec_blocks_at_once(DType dtype, std::int64_t rows) {
  int blocks = 0;
  with_float_type(dtype, [&](auto tag) {
    if (cudaOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, kernel_of<typename decltype(tag)::type>(rows), kThreads, 0) != cudaSuccess)
      blocks = 1;
  });
  return blocks;
}

}  // namespace tandem::cuda
