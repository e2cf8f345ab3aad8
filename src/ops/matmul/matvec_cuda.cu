#include "ops/matmul/finish_cuda.cuh"
#include "ops/matmul/matvec_cuda.h"

namespace tandem::cuda {
namespace {

constexpr int kWarps = 8, kThreads = 32 * kWarps;
constexpr int kFlight = 8;  // rows that a thread has under way

// 16 bytes that nobody reads again.
template <typename V>
__device__ __forceinline__ V read_once(const V* from) {
  static_assert(sizeof(V) == 16);
  union {
    std::uint32_t words[4];
    V value;
  } x;
  asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];"
               : "=r"(x.words[0]), "=r"(x.words[1]), "=r"(x.words[2]), "=r"(x.words[3])
               : "l"(from));
  return x.value;
}

// A warp takes every kWarps-th row of b; its lanes take neighbouring columns.
template <typename T, int kRows, int kVector>
__device__ __forceinline__ void add_rows(const MatVec& p, std::int64_t column, float (&sums)[kRows][kVector]) {
  using V = Vector<T, kVector>;
  const T* a = static_cast<const T*>(p.a);
  const T* b = static_cast<const T*>(p.b) + column;
  const std::int64_t first = blockIdx.y * p.depth, end = first + p.depth < p.k ? first + p.depth : p.k;
  const auto add = [&](const V& x, std::int64_t row) {
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      const float s = to_float(a[r * p.k + row]);
#pragma unroll
      for (int j = 0; j < kVector; ++j) sums[r][j] += s * to_float(x.at[j]);
    }
  };
  std::int64_t row = first + threadIdx.x / 32;
  for (; row + (kFlight - 1) * kWarps < end; row += kFlight * kWarps) {
    V x[kFlight];
#pragma unroll
    for (int u = 0; u < kFlight; ++u) x[u] = read_once(reinterpret_cast<const V*>(b + (row + u * kWarps) * p.n));
#pragma unroll
    for (int u = 0; u < kFlight; ++u) add(x[u], row + u * kWarps);
  }
  for (; row < end; row += kWarps) add(read_once(reinterpret_cast<const V*>(b + row * p.n)), row);
}

template <typename T>
__device__ __forceinline__ void finish(const MatVec& p, std::int64_t row, std::int64_t column, float sum) {
  const std::int64_t at = row * p.n + column;
  if (p.bias) sum += to_float(static_cast<const T*>(p.bias)[column]);
  sum = activate(p.activation, sum);
  if (p.residual) sum += to_float(static_cast<const T*>(p.residual)[at]);
  static_cast<T*>(p.c)[at] = from_float<T>(sum);
}

template <typename T, int kRows>
__global__ void __launch_bounds__(kThreads) matvec(const __grid_constant__ MatVec p) {
  constexpr int kVector = 16 / sizeof(T), kColumns = 32 * kVector;
  __shared__ alignas(16) float shared[kRows][kWarps][kColumns];
  __shared__ bool is_last;
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const std::int64_t column0 = std::int64_t{blockIdx.x} * kColumns;
  const int columns = p.n - column0 < kColumns ? static_cast<int>(p.n - column0) : kColumns;

  float sums[kRows][kVector] = {};
  if (lane * kVector < columns) add_rows<T, kRows, kVector>(p, column0 + lane * kVector, sums);
#pragma unroll
  for (int r = 0; r < kRows; ++r)
#pragma unroll
    for (int j = 0; j < kVector; ++j) shared[r][warp][lane * kVector + j] = sums[r][j];
  __syncthreads();

  for (int i = threadIdx.x; i < kRows * kColumns; i += kThreads) {
    const int r = i / kColumns, column = i % kColumns;
    if (column >= columns) continue;
    float sum = 0;
#pragma unroll
    for (int w = 0; w < kWarps; ++w) sum += shared[r][w][column];
    if (p.splits == 1) finish<T>(p, r, column0 + column, sum);
    else p.partials[(blockIdx.y * kRows + r) * p.n + column0 + column] = sum;
  }
  if (p.splits == 1) return;

  // The block that comes last adds what the others left, in their order.
  __threadfence();
  __syncthreads();
  if (threadIdx.x == 0) {
    is_last = atomicAdd(p.arrived + blockIdx.x, 1u) + 1 == gridDim.y;
    if (is_last) p.arrived[blockIdx.x] = 0;
  }
  __syncthreads();
  if (!is_last) return;
  __threadfence();
  for (int i = threadIdx.x; i < kRows * kColumns; i += kThreads) {
    const int r = i / kColumns, column = i % kColumns;
    if (column >= columns) continue;
    const float* partial = p.partials + r * p.n + column0 + column;
    float sum = 0;
#pragma unroll 8
    for (unsigned s = 0; s < gridDim.y; ++s) sum += __ldcg(partial + s * kRows * p.n);
    finish<T>(p, r, column0 + column, sum);
  }
}

template <typename T>
void launch(const MatVec& p, cudaStream_t stream) {
  const dim3 grid(grid_for(p.n, kMatVecColumns / static_cast<std::int64_t>(sizeof(T))), static_cast<unsigned>(p.splits));
  if (p.m == 1) matvec<T, 1><<<grid, kThreads, 0, stream>>>(p);
  if (p.m == 2) matvec<T, 2><<<grid, kThreads, 0, stream>>>(p);
  if (p.m == 3) matvec<T, 3><<<grid, kThreads, 0, stream>>>(p);
  if (p.m == 4) matvec<T, 4><<<grid, kThreads, 0, stream>>>(p);
}

}  // namespace

void launch_matvec(DType dtype, const MatVec& p, cudaStream_t stream) {
  with_float_type(dtype, [&](auto tag) { launch<typename decltype(tag)::type>(p, stream); });
}

}  // namespace tandem::cuda
