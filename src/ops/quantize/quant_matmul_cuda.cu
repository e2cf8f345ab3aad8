#include "device/cuda/dependent.cuh"
#include "ops/matmul/finish_cuda.cuh"
#include "ops/quantize/codes_cuda.cuh"
#include "ops/quantize/quant_matmul_cuda.h"

namespace tandem::cuda {
namespace {

constexpr int kThreads = 256;

// kVector elements a thread, of one row.
template <typename S, typename T, int kVector>
__global__ void __launch_bounds__(kThreads) finish_codes(const __grid_constant__ CodeSums f) {
  using V = Vector<T, kVector>;
  const std::int64_t i = std::int64_t{blockIdx.x} * kThreads + threadIdx.x, first = i * kVector;
  if (first >= f.count) return;
  const std::int64_t column =
      f.count <= 0xffffffff ? static_cast<std::uint32_t>(first) % static_cast<std::uint32_t>(f.columns) : first % f.columns;
  const auto sums = static_cast<const Vector<S, kVector>*>(f.sums)[i];
  V bias, residual, y;
  if (f.bias) bias = static_cast<const V*>(f.bias)[column / kVector];
  if (f.residual) residual = static_cast<const V*>(f.residual)[i];
  const float scale_a = float_at(f.scale_a_type, f.scale_a, 0);
#pragma unroll
  for (int j = 0; j < kVector; ++j) {
    float v = static_cast<float>(sums.at[j]) * scale_a * float_at(f.scale_type, f.scale, (column + j) * f.scale_step);
    if (f.bias) v += to_float(bias.at[j]);
    v = activate_for<T>(f.activation, v);
    if (f.residual) v += to_float(residual.at[j]);
    y.at[j] = from_float<T>(v);
  }
  static_cast<V*>(f.y)[i] = y;
}

template <typename S, typename T>
void launch_finish_of(const CodeSums& f, cudaStream_t stream) {
  constexpr int kWide = 8;
  const auto aligned = [](const void* p) { return reinterpret_cast<std::uintptr_t>(p) % alignof(Vector<T, kWide>) == 0; };
  if (aligned(f.bias) && aligned(f.residual) && aligned(f.y))
    start_kernel(stream, finish_codes<S, T, kWide>, grid_for(f.count / kWide, kThreads), kThreads, 0, f);
  else start_kernel(stream, finish_codes<S, T, 1>, grid_for(f.count, kThreads), kThreads, 0, f);
}

}  // namespace

void launch_finish_codes(const CodeSums& f, cudaStream_t stream) {
  if (f.count == 0) return;
  with_float_type(f.type, [&](auto tag) {
    using T = typename decltype(tag)::type;
    if (f.sums_type == DType::i32) launch_finish_of<std::int32_t, T>(f, stream);
    else launch_finish_of<float, T>(f, stream);
  });
}

}  // namespace tandem::cuda
