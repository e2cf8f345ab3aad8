// LayerNorm and RmsNorm: a row is read once into registers, where the mean and then the mean square of the differences are taken.
#include "device/cuda/dependent.cuh"
#include "ops/norm/norm_cuda.h"
#include "ops/rows_cuda.cuh"

namespace tandem::cuda {
namespace {

constexpr int kLongThreads = 1024, kRowThreads = 512;

// What a thread does with the kWidth columns from `column` on of one row.
template <typename T, int kWidth>
struct Columns {
  using V = Vector<T, kWidth>;
  static __device__ V load(const void* base, std::int64_t at) { return *reinterpret_cast<const V*>(static_cast<const T*>(base) + at); }
  static __device__ void store(void* base, std::int64_t at, const V& v) { *reinterpret_cast<V*>(static_cast<T*>(base) + at) = v; }

  // x + offset + residual as it is stored.
  static __device__ V add(const NormRows& r, V x, const V& residual, std::int64_t column) {
    V offset{};
    if (r.offset) offset = load(r.offset, column);
#pragma unroll
    for (int k = 0; k < kWidth; ++k) x.at[k] = from_float<T>(to_float(x.at[k]) + to_float(offset.at[k]) + to_float(residual.at[k]));
    return x;
  }
  static __device__ float sum(const V& x) {
    float total = 0;
#pragma unroll
    for (int k = 0; k < kWidth; ++k) total += to_float(x.at[k]);
    return total;
  }
  static __device__ float squares(const V& x, float mean) {
    float total = 0;
#pragma unroll
    for (int k = 0; k < kWidth; ++k) total += (to_float(x.at[k]) - mean) * (to_float(x.at[k]) - mean);
    return total;
  }
  static __device__ V normalized(const NormRows& r, V x, float mean, float factor, std::int64_t column) {
    const V scale = load(r.scale, column);
    V bias{};
    if (r.bias) bias = load(r.bias, column);
#pragma unroll
    for (int k = 0; k < kWidth; ++k)
      x.at[k] = from_float<T>((to_float(x.at[k]) - mean) * factor * to_float(scale.at[k]) + to_float(bias.at[k]));
    return x;
  }
};

template <typename T, int kWidth, int kPer, bool kCenters, bool kAdds>
__global__ void __launch_bounds__(kRowThreads) norm(const NormRows r) {
  begin_dependent();
  using C = Columns<T, kWidth>;
  __shared__ __align__(16) float shared[2][32];
  const std::int64_t row = std::int64_t{blockIdx.x} * blockDim.y + threadIdx.y, begin = row * r.length;
  const int length = static_cast<int>(r.length);
  const auto column = [](int i) { return static_cast<int>(i * blockDim.x + threadIdx.x) * kWidth; };
  const auto has = [&](int i) { return row < r.rows && column(i) < length; };
  typename C::V x[kPer];
#pragma unroll
  for (int i = 0; i < kPer; ++i) x[i] = has(i) ? C::load(r.x, begin + column(i)) : typename C::V{};
  if (kAdds) {
    typename C::V residual[kPer];
#pragma unroll
    for (int i = 0; i < kPer; ++i) residual[i] = has(i) ? C::load(r.residual, begin + column(i)) : typename C::V{};
#pragma unroll
    for (int i = 0; i < kPer; ++i)
      if (has(i)) {
        x[i] = C::add(r, x[i], residual[i], column(i));
        C::store(r.sum, begin + column(i), x[i]);
      }
  }
  float mean = 0, squares = 0;
  if (kCenters) {
#pragma unroll
    for (int i = 0; i < kPer; ++i) mean += C::sum(x[i]);
    mean = group_reduce(mean, Add(), shared[0]) * r.share;
  }
#pragma unroll
  for (int i = 0; i < kPer; ++i)
    if (has(i)) squares += C::squares(x[i], mean);
  const float factor = rsqrtf(group_reduce(squares, Add(), shared[1]) * r.share + r.epsilon);
#pragma unroll
  for (int i = 0; i < kPer; ++i)
    if (has(i)) C::store(r.y, begin + column(i), C::normalized(r, x[i], mean, factor, column(i)));
}

// A block per row, which is read again from memory for each step. A thread always comes back to its own columns.
template <typename T, int kWidth, bool kCenters, bool kAdds>
__global__ void __launch_bounds__(kLongThreads) norm_long(const NormRows r) {
  begin_dependent();
  using C = Columns<T, kWidth>;
  __shared__ __align__(16) float shared[2][32];
  const std::int64_t begin = blockIdx.x * r.length;
  const auto each = [&](auto work) {
#pragma unroll 4
    for (std::int64_t column = std::int64_t{threadIdx.x} * kWidth; column < r.length; column += kLongThreads * kWidth) work(column);
  };
  if (kAdds)
    each([&](std::int64_t column) {
      C::store(r.sum, begin + column, C::add(r, C::load(r.x, begin + column), C::load(r.residual, begin + column), column));
    });
  const void* x = kAdds ? r.sum : r.x;
  float mean = 0, squares = 0;
  if (kCenters) {
    each([&](std::int64_t column) { mean += C::sum(C::load(x, begin + column)); });
    mean = group_reduce(mean, Add(), shared[0]) * r.share;
  }
  each([&](std::int64_t column) { squares += C::squares(C::load(x, begin + column), mean); });
  const float factor = rsqrtf(group_reduce(squares, Add(), shared[1]) * r.share + r.epsilon);
  each([&](std::int64_t column) { C::store(r.y, begin + column, C::normalized(r, C::load(x, begin + column), mean, factor, column)); });
}

template <typename T, int kWidth, bool kCenters, bool kAdds>
void launch_form(const NormRows& r, int multiprocessors, const Start& start) {
  constexpr int kMostPer = kAdds ? 4 : 8;  // more would not stay in registers
  const RowLaunch launch = row_launch(r.rows, r.length / kWidth, kMostPer, kRowThreads, multiprocessors);
  if (launch.per == 0) {
    start_kernel(start, norm_long<T, kWidth, kCenters, kAdds>, grid_for(r.rows, 1), kLongThreads, 0, r);
    return;
  }
  with_per<kMostPer>(launch.per, [&](auto per) {
    start_kernel(start, norm<T, kWidth, per(), kCenters, kAdds>, grid_for(r.rows, launch.y), dim3(launch.x, launch.y), 0, r);
  });
}

template <typename T, int kWidth>
void launch_width(const NormRows& r, int multiprocessors, const Start& start) {
  if (r.centers && r.residual) launch_form<T, kWidth, true, true>(r, multiprocessors, start);
  else if (r.centers) launch_form<T, kWidth, true, false>(r, multiprocessors, start);
  else if (r.residual) launch_form<T, kWidth, false, true>(r, multiprocessors, start);
  else launch_form<T, kWidth, false, false>(r, multiprocessors, start);
}

}  // namespace

void launch_norm(const NormRows& r, int multiprocessors, const Start& start) {
  with_float_type(r.type, [&](auto tag) {
    using T = typename decltype(tag)::type;
    constexpr int kWide = 16 / sizeof(T);
    bool wide = r.length % kWide == 0;
    for (const void* address : {r.x, r.residual, r.offset, r.scale, r.bias, static_cast<const void*>(r.y), static_cast<const void*>(r.sum)})
      wide = wide && aligned_16(address);
    if (wide) launch_width<T, kWide>(r, multiprocessors, start);
    else launch_width<T, 1>(r, multiprocessors, start);
  });
}

}  // namespace tandem::cuda
