// Softmax: a contiguous row is read once into registers; other axes and longer rows are read once per step.
#include "device/cuda/dependent.cuh"
#include "ops/rows_cuda.cuh"
#include "ops/softmax/softmax_cuda.h"

namespace tandem::cuda {
namespace {

constexpr int kLongThreads = 1024;
constexpr int kColumns = 32, kParts = 8;  // of a block over an axis that is not the last

// 16-bit results see nothing of the quick exponential's rounding.
template <typename T>
__device__ __forceinline__ float exponential(float x) {
  return sizeof(T) == 4 ? expf(x) : __expf(x);
}

template <typename T, int kWidth, int kPer, bool kLogarithm>
__global__ void __launch_bounds__(1024) softmax(const T* x, T* y, std::int64_t rows, int length) {
  begin_dependent();
  using V = Vector<T, kWidth>;
  __shared__ __align__(16) float shared[2][32];
  const std::int64_t row = std::int64_t{blockIdx.x} * blockDim.y + threadIdx.y, begin = row * length;
  const auto column = [](int i) { return static_cast<int>(i * blockDim.x + threadIdx.x) * kWidth; };
  const auto has = [&](int i) { return row < rows && column(i) < length; };
  V line[kPer];
#pragma unroll
  for (int i = 0; i < kPer; ++i) line[i] = has(i) ? *reinterpret_cast<const V*>(x + begin + column(i)) : V{};
  float top = Larger::kNothing, total = 0, values[kPer][kWidth];
#pragma unroll
  for (int i = 0; i < kPer; ++i)
#pragma unroll
    for (int k = 0; k < kWidth; ++k) {
      values[i][k] = to_float(line[i].at[k]);
      if (has(i)) top = fmaxf(top, values[i][k]);
    }
  top = group_reduce(top, Larger(), shared[0]);
#pragma unroll
  for (int i = 0; i < kPer; ++i)
#pragma unroll
    for (int k = 0; k < kWidth; ++k) {
      const float shifted = values[i][k] - top, e = exponential<T>(shifted);
      if (has(i)) total += e;
      values[i][k] = kLogarithm ? shifted : e;
    }
  total = group_reduce(total, Add(), shared[1]);
  const float factor = kLogarithm ? logf(total) : 1.0f / total;
#pragma unroll
  for (int i = 0; i < kPer; ++i) {
    if (!has(i)) continue;
#pragma unroll
    for (int k = 0; k < kWidth; ++k) line[i].at[k] = from_float<T>(kLogarithm ? values[i][k] - factor : values[i][k] * factor);
    *reinterpret_cast<V*>(y + begin + column(i)) = line[i];
  }
}

// A block per row.
template <typename T, int kWidth, bool kLogarithm>
__global__ void __launch_bounds__(kLongThreads) softmax_long(const T* x, T* y, std::int64_t length) {
  begin_dependent();
  using V = Vector<T, kWidth>;
  __shared__ __align__(16) float shared[2][32];
  const std::int64_t begin = blockIdx.x * length;
  const auto each = [&](auto work) {
#pragma unroll 4
    for (std::int64_t column = std::int64_t{threadIdx.x} * kWidth; column < length; column += kLongThreads * kWidth) {
      const V v = *reinterpret_cast<const V*>(x + begin + column);
      work(begin + column, v);
    }
  };
  float top = Larger::kNothing, total = 0;
  each([&](std::int64_t, const V& v) {
#pragma unroll
    for (int k = 0; k < kWidth; ++k) top = fmaxf(top, to_float(v.at[k]));
  });
  top = group_reduce(top, Larger(), shared[0]);
  each([&](std::int64_t, const V& v) {
#pragma unroll
    for (int k = 0; k < kWidth; ++k) total += exponential<T>(to_float(v.at[k]) - top);
  });
  total = group_reduce(total, Add(), shared[1]);
  const float factor = kLogarithm ? logf(total) : 1.0f / total;
  each([&](std::int64_t at, V v) {
#pragma unroll
    for (int k = 0; k < kWidth; ++k) {
      const float shifted = to_float(v.at[k]) - top;
      v.at[k] = from_float<T>(kLogarithm ? shifted - factor : exponential<T>(shifted) * factor);
    }
    *reinterpret_cast<V*>(y + at) = v;
  });
}

// An axis that is not the last: neighbouring threads take neighbouring columns, and kParts of them share a column's extent.
template <typename T, bool kLogarithm>
__global__ void __launch_bounds__(kColumns* kParts)
    softmax_columns(const T* x, T* y, std::int64_t columns, std::int64_t extent, std::int64_t inner) {
  begin_dependent();
  __shared__ float tops[kParts][kColumns], totals[kParts][kColumns];
  const std::int64_t index = std::int64_t{blockIdx.x} * kColumns + threadIdx.x;
  const int part = threadIdx.y;
  const bool real = index < columns;
  const std::int64_t begin = real ? index / inner * extent * inner + index % inner : 0;
  float top = Larger::kNothing, total = 0;
  for (std::int64_t j = part; real && j < extent; j += kParts) top = fmaxf(top, to_float(x[begin + j * inner]));
  tops[part][threadIdx.x] = top;
  __syncthreads();
  for (int i = 0; i < kParts; ++i) top = fmaxf(top, tops[i][threadIdx.x]);
  for (std::int64_t j = part; real && j < extent; j += kParts) total += exponential<T>(to_float(x[begin + j * inner]) - top);
  totals[part][threadIdx.x] = total;
  __syncthreads();
  total = 0;
  for (int i = 0; i < kParts; ++i) total += totals[i][threadIdx.x];
  const float factor = kLogarithm ? logf(total) : 1.0f / total;
  for (std::int64_t j = part; real && j < extent; j += kParts) {
    const float shifted = to_float(x[begin + j * inner]) - top;
    y[begin + j * inner] = from_float<T>(kLogarithm ? shifted - factor : exponential<T>(shifted) * factor);
  }
}

template <typename T, int kWidth, bool kLogarithm>
void launch_rows(const T* x, T* y, std::int64_t rows, std::int64_t length, int multiprocessors, const Start& start) {
  constexpr int kMostPer = kWidth == 8 ? 4 : 8;  // 32 values of a thread
  const RowLaunch launch = row_launch(rows, length / kWidth, kMostPer, 1024, multiprocessors);
  if (launch.per == 0) {
    start_kernel(start, softmax_long<T, kWidth, kLogarithm>, grid_for(rows, 1), kLongThreads, 0, x, y, length);
    return;
  }
  with_per<kMostPer>(launch.per, [&](auto per) {
    if constexpr (per() <= kMostPer)
      start_kernel(start, softmax<T, kWidth, per(), kLogarithm>, grid_for(rows, launch.y), dim3(launch.x, launch.y), 0, x, y, rows,
                   static_cast<int>(length));
  });
}

template <typename T, bool kLogarithm>
void launch_form(const SoftmaxRows& r, int multiprocessors, const Start& start) {
  constexpr int kWide = 16 / sizeof(T);
  const T* x = static_cast<const T*>(r.x);
  T* y = static_cast<T*>(r.y);
  if (r.inner != 1) {
    const std::int64_t columns = r.outer * r.inner;
    start_kernel(start, softmax_columns<T, kLogarithm>, grid_for(columns, kColumns), dim3(kColumns, kParts), 0, x, y, columns, r.extent,
                 r.inner);
  } else if (r.extent % kWide == 0 && aligned_16(x) && aligned_16(y)) {
    launch_rows<T, kWide, kLogarithm>(x, y, r.outer, r.extent, multiprocessors, start);
  } else {
    launch_rows<T, 1, kLogarithm>(x, y, r.outer, r.extent, multiprocessors, start);
  }
}

}  // namespace

void launch_softmax(const SoftmaxRows& rows, int multiprocessors, const Start& start) {
  with_float_type(rows.type, [&](auto tag) {
    using T = typename decltype(tag)::type;
    if (rows.logarithm) launch_form<T, true>(rows, multiprocessors, start);
    else launch_form<T, false>(rows, multiprocessors, start);
  });
}

}  // namespace tandem::cuda
