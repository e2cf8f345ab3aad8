#include "device/cuda/dependent.cuh"
#include "device/cuda/registers.cuh"
#include "ops/arrivals_cuda.cuh"
#include "ops/matmul/finish_cuda.cuh"
#include "ops/matmul/stream_cuda.cuh"
#include "ops/quantize/codes_cuda.cuh"
#include "ops/quantize/dequant_matvec_cuda.h"

namespace tandem::cuda {
namespace {

constexpr int kWarps = kDequantWarps, kThreads = 32 * kWarps;

// Columns that a thread has, so that sums and scales stay in registers, and the rows of b it has under way.
template <typename C, int kRows>
struct Cut {
  static constexpr int kColumns = kIsPair<C> ? (kRows == 1 ? 32 : 16) : (kRows <= 2 ? 16 : 8);
  static constexpr int kBytes = kColumns / kPerByte<C>;
  static constexpr int kFlight = 64 / kBytes;
  static constexpr int kBlockColumns = 32 * kColumns;
};

// Scales and what zero points add, of this thread's columns.
template <typename C, int kColumns>
struct Scales {
  float factor[kColumns], addend[kColumns];

  __device__ __forceinline__ void load(const DequantMatVec& p, std::int64_t row, std::int64_t column) {
    const std::int64_t first = row / p.block * p.scale_row + column * p.scale_column;
#pragma unroll
    for (int j = 0; j < kColumns; ++j) {
      factor[j] = float_at(p.scale_type, p.scale, first + j * p.scale_column);
      addend[j] = p.zero ? -code_at<C>(p.zero, first + j * p.scale_column) * factor[j] : 0.0f;
    }
  }
};

// A warp takes neighbouring rows of b, its lanes neighbouring columns. A thread reads only what it copied itself. With kScalesLast, where a
// column has one scale and no zero point, sums are of codes.
template <typename C, int kRows, bool kScalesLast>
__device__ __forceinline__ void add_rows(const DequantMatVec& p, std::int64_t column, unsigned char* ring,
                                         float (&sums)[kRows][Cut<C, kRows>::kColumns]) {
  using K = Cut<C, kRows>;
  const std::int64_t share = p.depth / kWarps, begin = blockIdx.y * p.depth + threadIdx.x / 32 * share;
  const std::int64_t end = begin + share < p.k ? begin + share : p.k;
  const int count = begin < end ? static_cast<int>(end - begin) : 0;
  const std::int64_t pitch = p.n / kPerByte<C>;
  const auto* b = static_cast<const unsigned char*>(p.b) + begin * pitch + column / kPerByte<C>;
  std::int64_t a[kRows];  // first elements
#pragma unroll
  for (int r = 0; r < kRows; ++r) a[r] = (r < p.m ? r : p.m - 1) * p.k + begin;
  const auto place = [&](int i) { return ring + ((i % K::kFlight) * kThreads + threadIdx.x) * K::kBytes; };
  const auto start = [&](int i) {
    if (i < count) start_copy<K::kBytes>(place(i), b + i * pitch);
    end_group();  // one group a row, empty past the end, so that the number to wait for stays the same
  };
#pragma unroll
  for (int i = 0; i < K::kFlight; ++i) start(i);
  Scales<C, K::kColumns> scales;
  for (int i = 0; i < count;) {
    int until = count;
    if constexpr (!kScalesLast) {
      scales.load(p, begin + i, column);
      const std::int64_t left = p.block - (begin + i) % p.block;
      if (left < count - i) until = i + static_cast<int>(left);
    }
#pragma unroll 2
    for (; i < until; ++i) {
      wait_for_all_but<K::kFlight - 1>();
      const auto words = *reinterpret_cast<const Vector<std::uint32_t, K::kBytes / 4>*>(place(i));
      float w[K::kColumns];
#pragma unroll
      for (int word = 0; word < K::kBytes / 4; ++word) {
        constexpr int kEach = 4 * kPerByte<C>;
        float some[kEach];
        decode<C>(words.at[word], some);
#pragma unroll
        for (int j = 0; j < kEach; ++j) w[word * kEach + j] = some[j];
      }
      start(i + K::kFlight);
      if constexpr (!kScalesLast) {
#pragma unroll
        for (int j = 0; j < K::kColumns; ++j) w[j] = w[j] * scales.factor[j] + scales.addend[j];
      }
#pragma unroll
      for (int r = 0; r < kRows; ++r) {
        const float x = float_at(p.type, p.a, a[r] + i);
#pragma unroll
        for (int j = 0; j < K::kColumns; ++j) sums[r][j] += x * w[j];
      }
    }
  }
  wait_for_all_but<0>();
  if constexpr (kScalesLast) {
    scales.load(p, 0, column);
#pragma unroll
    for (int r = 0; r < kRows; ++r)
#pragma unroll
      for (int j = 0; j < K::kColumns; ++j) sums[r][j] *= scales.factor[j];
  }
}

// Adds what the warps of a block have for each column and gives it to `use`, a row of a at a time.
template <int kRows, int kColumns, typename Use>
__device__ __forceinline__ void across_warps(float* shared, const float (&sums)[kRows][kColumns], int columns, const Use& use) {
  constexpr int kLine = 32 * kColumns;
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
    __syncthreads();
#pragma unroll
    for (int j = 0; j < kColumns; ++j) shared[warp * kLine + lane * kColumns + j] = sums[r][j];
    __syncthreads();
    for (int column = threadIdx.x; column < columns; column += kThreads) {
      float sum = 0;
#pragma unroll
      for (int w = 0; w < kWarps; ++w) sum += shared[w * kLine + column];
      use(r, column, sum);
    }
  }
}

__device__ __forceinline__ void finish(const DequantMatVec& p, std::int64_t row, std::int64_t column, float sum) {
  const std::int64_t at = row * p.n + column;
  if (p.bias) sum += float_at(p.type, p.bias, column);
  sum = activate(p.activation, sum);
  if (p.residual) sum += float_at(p.type, p.residual, at);
  if (p.type == DType::f16) static_cast<__half*>(p.c)[at] = from_float<__half>(sum);
  else if (p.type == DType::bf16) static_cast<__nv_bfloat16*>(p.c)[at] = from_float<__nv_bfloat16>(sum);
  else static_cast<float*>(p.c)[at] = sum;
}

// A least number of blocks keeps ptxas from spilling a few registers for more of them at once.
template <typename C, int kRows, bool kScalesLast>
__global__ void __launch_bounds__(kThreads, kRows < 4 && !(kScalesLast && kBefore90) ? 0 : 1)
    dequant_matvec(const __grid_constant__ DequantMatVec p) {
  using K = Cut<C, kRows>;
  constexpr int kRing = K::kFlight * kThreads * K::kBytes, kSums = kWarps * K::kBlockColumns * static_cast<int>(sizeof(float));
  __shared__ __align__(16) unsigned char memory[kRing > kSums ? kRing : kSums];
  auto* shared = reinterpret_cast<float*>(memory);
  const std::int64_t column0 = std::int64_t{blockIdx.x} * K::kBlockColumns, column = column0 + threadIdx.x % 32 * K::kColumns;
  const int columns = p.n - column0 < K::kBlockColumns ? static_cast<int>(p.n - column0) : K::kBlockColumns;
  float sums[kRows][K::kColumns] = {};
  if (column < p.n) add_rows<C, kRows, kScalesLast>(p, column, memory, sums);
  const auto finished = [&](int r, int at, float sum) {
    if (r < p.m) finish(p, r, column0 + at, sum);
  };
  if (p.splits == 1) return across_warps(shared, sums, columns, finished);
  across_warps(shared, sums, columns, [&](int r, int at, float sum) {
    if (r < p.m) p.partials[(blockIdx.y * p.m + r) * p.n + column0 + at] = sum;
  });
  if (!is_last_to_arrive(p.arrived + blockIdx.x, gridDim.y)) return;
  for (int r = 0; r < kRows && r < p.m; ++r)
    for (int at = threadIdx.x; at < columns; at += kThreads) {
      float sum = 0;
      for (unsigned s = 0; s < gridDim.y; ++s) sum += __ldcg(p.partials + (s * p.m + r) * p.n + column0 + at);
      finished(r, at, sum);
    }
}

// Calls `work(kernel, columns per block)`.
template <typename C, bool kScalesLast, typename Work>
void with_rows(std::int64_t rows, const Work& work) {
  if (rows == 1) return work(dequant_matvec<C, 1, kScalesLast>, Cut<C, 1>::kBlockColumns);
  if (rows == 2) return work(dequant_matvec<C, 2, kScalesLast>, Cut<C, 2>::kBlockColumns);
  static_assert(kDequantRows == 4);
  work(dequant_matvec<C, 4, kScalesLast>, Cut<C, 4>::kBlockColumns);
}

template <typename Work>
void with_kernel(DType codes, std::int64_t rows, bool scales_last, const Work& work) {
  with_code_type(codes, [&](auto c) {
    using C = typename decltype(c)::type;
    if constexpr (!kIsPair<C>)  // those of 4 bits have a scale per block
      if (scales_last) return with_rows<C, true>(rows, work);
    with_rows<C, false>(rows, work);
  });
}

bool scales_last(const DequantMatVec& p) { return p.block >= p.k && !p.zero; }

}  // namespace

void launch_dequant_matvec(DType codes, const DequantMatVec& p, cudaStream_t stream) {
  with_kernel(codes, p.m, scales_last(p), [&](auto kernel, int columns) {
    const dim3 grid(grid_for(p.n, columns), static_cast<unsigned>(p.splits));
    start_kernel(stream, kernel, grid, kThreads, 0, p);
  });
}

DequantCut dequant_cut(DType codes, std::int64_t rows, bool scales_last) {
  DequantCut cut;
  with_kernel(codes, rows, scales_last, [&](auto kernel, int columns) {
    cut.columns = columns;
    if (cudaOccupancyMaxActiveBlocksPerMultiprocessor(&cut.blocks_at_once, kernel, kThreads, 0) != cudaSuccess) cut.blocks_at_once = 1;
  });
  return cut;
}

}  // namespace tandem::cuda
