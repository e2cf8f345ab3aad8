// Rotary embedding: neighbouring threads take neighbouring pairs of a line.
#include "device/cuda/dependent.cuh"
#include "ops/attention/rotary_embedding_cuda.h"
#include "ops/rows_cuda.cuh"

namespace tandem::cuda {
namespace {

constexpr int kThreads = 128;

// Division of 32 bits wherever numbers are small: that of 64 is a long routine.
__device__ __forceinline__ std::int64_t quotient(std::int64_t a, int b) {
  return a >> 31 == 0 ? static_cast<std::int64_t>(static_cast<unsigned>(a) / static_cast<unsigned>(b)) : a / b;
}

// The first angle of a line.
__device__ __forceinline__ std::int64_t angle_of(const RotaryRows& r, std::int64_t line) {
  const std::int64_t over_inner = quotient(line, r.heads_last ? r.heads : r.rows);
  const std::int64_t batch = quotient(over_inner, r.heads_last ? r.rows : r.heads);
  const std::int64_t row = r.heads_last ? over_inner - batch * r.rows : line - over_inner * r.rows;
  return batch * r.angle_batch_step + row * r.half;
}

template <typename T, int kPairs, bool kInterleaved>
__global__ void __launch_bounds__(kThreads) rotate(const RotaryRows r) {
  begin_dependent();
  using Angles = Vector<T, kPairs>;
  const std::int64_t line = std::int64_t{blockIdx.x} * blockDim.y + threadIdx.y;
  if (line >= r.lines) return;
  const T* x = static_cast<const T*>(r.x) + line * r.size;
  T* y = static_cast<T*>(r.y) + line * r.size;
  const std::int64_t angle = angle_of(r, line);
  for (int j = static_cast<int>(threadIdx.x) * kPairs; j < r.half; j += static_cast<int>(blockDim.x) * kPairs) {
    const Angles cosine = *reinterpret_cast<const Angles*>(static_cast<const T*>(r.cosine) + angle + j);
    const Angles sine = *reinterpret_cast<const Angles*>(static_cast<const T*>(r.sine) + angle + j);
    const auto turn = [&](T& first, T& second, int k) {
      const float a = to_float(first), b = to_float(second), c = to_float(cosine.at[k]), s = to_float(sine.at[k]);
      first = from_float<T>(a * c - b * s);
      second = from_float<T>(b * c + a * s);
    };
    if (kInterleaved && kPairs == 1) {  // rows may begin anywhere
      T first = x[2 * j], second = x[2 * j + 1];
      turn(first, second, 0);
      y[2 * j] = first;
      y[2 * j + 1] = second;
    } else if (kInterleaved) {
      using Pairs = Vector<T, 2 * kPairs>;
      Pairs v = *reinterpret_cast<const Pairs*>(x + 2 * j);
#pragma unroll
      for (int k = 0; k < kPairs; ++k) turn(v.at[2 * k], v.at[2 * k + 1], k);
      *reinterpret_cast<Pairs*>(y + 2 * j) = v;
    } else {
      Angles first = *reinterpret_cast<const Angles*>(x + j), second = *reinterpret_cast<const Angles*>(x + r.half + j);
#pragma unroll
      for (int k = 0; k < kPairs; ++k) turn(first.at[k], second.at[k], k);
      *reinterpret_cast<Angles*>(y + j) = first;
      *reinterpret_cast<Angles*>(y + r.half + j) = second;
    }
  }
  if (x == y) return;
  for (int d = 2 * r.half + static_cast<int>(threadIdx.x) * kPairs; d < r.size; d += static_cast<int>(blockDim.x) * kPairs)
    *reinterpret_cast<Angles*>(y + d) = *reinterpret_cast<const Angles*>(x + d);
}

template <typename T, int kPairs, bool kInterleaved>
void launch(const RotaryRows& r, const Start& start) {
  int x = 1;
  while (x < kThreads && x * kPairs < r.half) x *= 2;
  const int y = kThreads / x;
  start_kernel(start, rotate<T, kPairs, kInterleaved>, grid_for(r.lines, y), dim3(x, y), 0, r);
}

}  // namespace

void launch_rotary_embedding(const RotaryRows& r, const Start& start) {
  with_float_type(r.type, [&](auto tag) {
    using T = typename decltype(tag)::type;
    constexpr int kWide = 16 / sizeof(T);
    bool wide = r.size % kWide == 0 && r.half % kWide == 0;
    for (const void* address : {r.x, r.cosine, r.sine, static_cast<const void*>(r.y)}) wide = wide && aligned_16(address);
    if (r.interleaved && wide) launch<T, kWide / 2, true>(r, start);
    else if (r.interleaved) launch<T, 1, true>(r, start);
    else if (wide) launch<T, kWide, false>(r, start);
    else launch<T, 1, false>(r, start);
  });
}

}  // namespace tandem::cuda
