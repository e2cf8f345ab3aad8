#include "device/cuda/dependent.cuh"
#include "ops/matmul/finish_cuda.cuh"
#include "ops/matmul/finish_cuda.h"

namespace tandem::cuda {
namespace {

constexpr int kThreads = 256;

// kCount elements a thread; `columns` is a multiple of it, so that a vector lies in one row.
template <typename T, int kCount>
__global__ void __launch_bounds__(kThreads)
    finish(Activation activation, T* c, const T* bias, const T* residual, std::int64_t vectors, std::int64_t columns) {
  begin_dependent();
  using A = Arithmetic<T>;
  using V = Vector<T, kCount>;
  const std::int64_t i = std::int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (i >= vectors) return;
  V x = reinterpret_cast<const V*>(c)[i], add, more;
  if (bias) {
    const std::int64_t row = columns / kCount;
    add =
        reinterpret_cast<const V*>(bias)[vectors <= 0xffffffff ? static_cast<std::uint32_t>(i) % static_cast<std::uint32_t>(row) : i % row];
  }
  if (residual) more = reinterpret_cast<const V*>(residual)[i];
#pragma unroll
  for (int j = 0; j < kCount; ++j) {
    auto y = A::load(x.at[j]);
    if (bias) y += A::load(add.at[j]);
    y = activate_for<T>(activation, y);
    if (residual) y += A::load(more.at[j]);
    x.at[j] = A::store(y);
  }
  reinterpret_cast<V*>(c)[i] = x;
}

bool aligned(const void* p) { return reinterpret_cast<std::uintptr_t>(p) % 16 == 0; }

}  // namespace

void launch_finish(DType dtype, Activation activation, void* c, const void* bias, const void* residual, std::int64_t count,
                   std::int64_t columns, const Start& start) {
  if (count == 0) return;
  with_number_type(dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    if constexpr (!std::is_integral_v<T>) {
      constexpr int kCount = 16 / sizeof(T);
      T* y = static_cast<T*>(c);
      const T *b = static_cast<const T*>(bias), *r = static_cast<const T*>(residual);
      if (columns % kCount == 0 && aligned(c) && aligned(bias) && aligned(residual))
        start_kernel(start, finish<T, kCount>, grid_for(count / kCount, kThreads), kThreads, 0, activation, y, b, r, count / kCount,
                     columns);
      else start_kernel(start, finish<T, 1>, grid_for(count, kThreads), kThreads, 0, activation, y, b, r, count, columns);
    } else {
      throw Error(ErrorCode::internal, "integers are finished with their sums");
    }
  });
}

}  // namespace tandem::cuda
