#include "device/cuda/dependent.cuh"
#include "ops/move_cuda.cuh"
#include "ops/quantize/codes_cuda.cuh"
#include "ops/quantize/quantize_cuda.h"

namespace tandem::cuda {
namespace {

constexpr int kThreads = 256;

// A division of 64 bits takes as long as all else that is done to an element.
__device__ __forceinline__ std::int64_t scale_index(const Quantizing& q, std::int64_t index) {
  if (q.count <= kMostItems) {
    std::uint32_t rest = static_cast<std::uint32_t>(index);
    const std::uint32_t i = take_index(rest, q.by_inner), e = take_index(rest, q.by_extent);
    return rest * q.outer_step + quotient(e, q.by_block) * q.axis_step + i * q.inner_step;
  }
  const std::int64_t line = index / q.inner, i = index - line * q.inner, o = line / q.extent, e = line - o * q.extent;
  return o * q.outer_step + e / q.block * q.axis_step + i * q.inner_step;
}

// Calls `use(j, scale index)` for kVector elements from `first` on, which lie on one line where `inner` is a multiple of kVector.
template <int kVector, typename Use>
__device__ __forceinline__ void each(const Quantizing& q, std::int64_t first, const Use& use) {
  if (q.inner % kVector == 0) {
    const std::int64_t at = scale_index(q, first);
#pragma unroll
    for (int j = 0; j < kVector; ++j) use(j, at + j * q.inner_step);
  } else {
#pragma unroll
    for (int j = 0; j < kVector; ++j)
      if (first + j < q.count) use(j, scale_index(q, first + j));
  }
}

// Bytes of kVector codes, moved at once.
template <typename T, int kVector>
using CodeBytes = Vector<std::conditional_t<sizeof(T) == 1, std::uint8_t, T>, kVector / kPerByte<T>>;

// Those that `bytes` hold.
template <typename T, int kVector>
__device__ __forceinline__ void decode_all(const CodeBytes<T, kVector>& bytes, float (&codes)[kVector]) {
  if constexpr (sizeof(T) == 1) {
    constexpr int kPerWord = 4 * kPerByte<T>;
    static_assert(kVector % kPerWord == 0);
#pragma unroll
    for (int w = 0; w < kVector / kPerWord; ++w) {
      float some[kPerWord];
      decode<T>(reinterpret_cast<const std::uint32_t*>(&bytes)[w], some);
#pragma unroll
      for (int j = 0; j < kPerWord; ++j) codes[w * kPerWord + j] = some[j];
    }
  } else {
#pragma unroll
    for (int j = 0; j < kVector; ++j) codes[j] = code_at<T>(&bytes, j);
  }
}

template <typename T>
__device__ __forceinline__ T encode(float v) {
  if constexpr (std::is_integral_v<T>) return static_cast<T>(static_cast<int>(v));
  else return T(v);
}

// q.from is F, q.to is T.
template <typename F, typename T, int kVector>
__global__ void __launch_bounds__(kThreads) dequantize(const __grid_constant__ Quantizing q) {
  const std::int64_t first = (std::int64_t{blockIdx.x} * kThreads + threadIdx.x) * kVector;
  if (first >= q.count) return;
  T* y = static_cast<T*>(q.y) + first;
  const auto value = [&](float code, std::int64_t at) {
    const float zero = q.zero ? code_at<F>(q.zero, at) : 0.0f;
    return from_float<T>((code - zero) * float_at(q.scale_type, q.scale, at));
  };
  if constexpr (kVector <= 2) {  // addresses that are not aligned
#pragma unroll
    for (int j = 0; j < kVector; ++j)
      if (first + j < q.count) y[j] = value(code_at<F>(q.x, first + j), scale_index(q, first + j));
  } else if (first + kVector <= q.count) {
    Vector<T, kVector> out;
    const auto bytes = reinterpret_cast<const CodeBytes<F, kVector>*>(q.x)[first / kVector];
    float codes[kVector];
    decode_all<F, kVector>(bytes, codes);
    each<kVector>(q, first, [&](int j, std::int64_t at) { out.at[j] = value(codes[j], at); });
    *reinterpret_cast<Vector<T, kVector>*>(y) = out;
  } else {
    for (int j = 0; first + j < q.count; ++j) y[j] = value(code_at<F>(q.x, first + j), scale_index(q, first + j));
  }
}

__device__ __forceinline__ float rounded_to(DType type, float v) {
  if (type == DType::f16) return to_float(from_float<__half>(v));
  if (type == DType::bf16) return to_float(from_float<__nv_bfloat16>(v));
  return v;
}

// q.from is F, q.to is T. Two elements at least, so that no two threads share a byte.
template <typename F, typename T, int kVector>
__global__ void __launch_bounds__(kThreads) quantize(const __grid_constant__ Quantizing q) {
  const std::int64_t first = (std::int64_t{blockIdx.x} * kThreads + threadIdx.x) * kVector;
  if (first >= q.count) return;
  const bool whole = first + kVector <= q.count;
  const int count = whole ? kVector : static_cast<int>(q.count - first);
  const F* x = static_cast<const F*>(q.x) + first;
  Vector<F, kVector> in;
  if (whole && kVector > 2) {
    in = *reinterpret_cast<const Vector<F, kVector>*>(x);
  } else {
#pragma unroll
    for (int j = 0; j < kVector; ++j) in.at[j] = x[j < count ? j : 0];
  }
  float codes[kVector] = {};
  const auto code = [&](int j, std::int64_t at) {
    float v = rounded_to(q.scale_type, to_float(in.at[j]) / float_at(q.scale_type, q.scale, at));
    if constexpr (std::is_integral_v<T> || kIsPair<T>) {
      v = v != v ? 0.0f : rintf(v);
      if (q.zero) v += code_at<T>(q.zero, at);
    }
    codes[j] = v < q.least ? q.least : v > q.most ? q.most : v;
  };
  if (whole) {
    each<kVector>(q, first, code);
  } else {
#pragma unroll
    for (int j = 0; j < kVector; ++j)
      if (j < count) code(j, scale_index(q, first + j));
  }
  CodeBytes<T, kVector> out;
  if constexpr (kIsPair<T>) {
#pragma unroll
    for (int j = 0; j < kVector; j += 2)
      out.at[j / 2] = static_cast<std::uint8_t>((static_cast<int>(codes[j]) & 15) | (static_cast<int>(codes[j + 1]) & 15) << 4);
    std::uint8_t* y = static_cast<std::uint8_t*>(q.y) + first / 2;
    if (whole && kVector > 2) {
      *reinterpret_cast<CodeBytes<T, kVector>*>(y) = out;
    } else {
#pragma unroll
      for (int j = 0; j < kVector / 2; ++j)
        if (j < (count + 1) / 2) y[j] = out.at[j];
    }
  } else {
    T* y = static_cast<T*>(q.y) + first;
    alignas(16) T made[kVector];
#pragma unroll
    for (int j = 0; j < kVector; ++j) made[j] = encode<T>(codes[j]);
    if (whole && kVector > 2) {
      *reinterpret_cast<CodeBytes<T, kVector>*>(y) = *reinterpret_cast<const CodeBytes<T, kVector>*>(made);
    } else {
#pragma unroll
      for (int j = 0; j < kVector; ++j)
        if (j < count) y[j] = made[j];
    }
  }
}

template <typename Work>
void with_quantized_type(DType dtype, const Work& work) {
  if (dtype == DType::i16) return work(Tag<std::int16_t>());
  if (dtype == DType::u16) return work(Tag<std::uint16_t>());
  with_code_type(dtype, work);
}

bool is_aligned(const void* p) { return reinterpret_cast<std::uintptr_t>(p) % 32 == 0; }

template <typename F, typename T>
void launch_dequantize_of(const Quantizing& q, cudaStream_t stream) {
  constexpr int kWide = 8;
  if (is_aligned(q.x) && is_aligned(q.y))
    return start_kernel(stream, dequantize<F, T, kWide>, grid_for(q.count, kThreads * kWide), kThreads, 0, q);
  constexpr int kNarrow = kPerByte<F>;
  if constexpr (kNarrow == 1) start_kernel(stream, dequantize<F, T, 1>, grid_for(q.count, kThreads), kThreads, 0, q);
  else start_kernel(stream, dequantize<F, T, 2>, grid_for(q.count, kThreads * 2), kThreads, 0, q);
}

}  // namespace

void launch_quantize(const Quantizing& q, cudaStream_t stream) {
  with_float_type(q.from, [&](auto from) {
    with_quantized_type(q.to, [&](auto to) {
      using F = typename decltype(from)::type;
      using T = typename decltype(to)::type;
      if (is_aligned(q.x) && is_aligned(q.y)) start_kernel(stream, quantize<F, T, 8>, grid_for(q.count, kThreads * 8), kThreads, 0, q);
      else start_kernel(stream, quantize<F, T, 2>, grid_for(q.count, kThreads * 2), kThreads, 0, q);
    });
  });
}

void launch_dequantize(const Quantizing& q, cudaStream_t stream) {
  with_float_type(q.to, [&](auto to) {
    using T = typename decltype(to)::type;
    if (q.from == DType::i32) return launch_dequantize_of<std::int32_t, T>(q, stream);
    with_quantized_type(q.from, [&](auto from) { launch_dequantize_of<typename decltype(from)::type, T>(q, stream); });
  });
}

}  // namespace tandem::cuda
