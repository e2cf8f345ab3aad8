// What follows a sum of products in device code: bias, activation, residual. Formulas as in ops/pointwise/scalar.h, in f32 or f64.
#pragma once

#include "ops/matmul/activation.h"
#include "ops/types_cuda.cuh"

namespace tandem::cuda {

// Arithmetic of an element type: 16-bit floats in f32, integers as unsigned numbers that wrap.
template <typename T>
struct Arithmetic {
  using type = float;
  static __device__ __forceinline__ float load(T x) { return to_float(x); }
  static __device__ __forceinline__ T store(float x) { return from_float<T>(x); }
};
template <>
struct Arithmetic<double> {
  using type = double;
  static __device__ __forceinline__ double load(double x) { return x; }
  static __device__ __forceinline__ double store(double x) { return x; }
};
template <typename T>
  requires std::is_integral_v<T>
struct Arithmetic<T> {
  using type = std::conditional_t<sizeof(T) == 8, std::uint64_t, std::uint32_t>;
  static __device__ __forceinline__ type load(T x) { return static_cast<type>(x); }
  static __device__ __forceinline__ T store(type x) { return static_cast<T>(x); }
};

__device__ __forceinline__ float exp_of(float x) { return expf(x); }
__device__ __forceinline__ double exp_of(double x) { return exp(x); }

template <typename A>
__device__ __forceinline__ A sigmoid_of(A x) {
  const A e = exp_of(x < A{0} ? x : -x);  // never overflows; NaN passes
  return (x < A{0} ? e : A{1}) / (A{1} + e);
}

// `activation` is the same for all threads, so the branches cost little.
template <typename A>
__device__ __forceinline__ A activate(Activation activation, A x) {
  if constexpr (std::is_integral_v<A>) {
    return x;  // integers have none
  } else {
    switch (activation) {
      case Activation::none: return x;
      case Activation::gelu:
        if constexpr (sizeof(A) == 8) return A{0.5} * x * erfc(-x * A{0.70710678118654752440});
        else return A{0.5f} * x * erfcf(-x * A{0.70710678118654752440f});
      case Activation::gelu_tanh:
        return x * sigmoid_of(A(1.5957691216057307118) * (x + A(0.044715) * x * x * x));  // (1 + tanh u)/2 = sigmoid 2u
      case Activation::silu: return x * sigmoid_of(x);
      case Activation::relu: return x < A{0} ? A{0} : x;
      case Activation::tanh:
        if constexpr (sizeof(A) == 8) return tanh(x);
        else return tanhf(x);
      case Activation::sigmoid: return sigmoid_of(x);
    }
    return x;
  }
}

// x·Φ(x) for results of 16 bits, at a third of what erfcf costs, relative error below 1e-5 where |x| < 9: log₂Φ(−u) is −u²·log₂(e)/2 and a
// smooth rest, here its Chebyshev fit on [0, 9] written in powers of u.
__device__ __forceinline__ float short_gelu(float x) {
  const float u = fabsf(x), v = fminf(u, 9.0f);
  float rest = 7.439292915e-8f;
  rest = rest * v - 3.647929589e-6f;
  rest = rest * v + 7.933776942e-5f;
  rest = rest * v - 1.019443735e-3f;
  rest = rest * v + 8.749261498e-3f;
  rest = rest * v - 5.430437252e-2f;
  rest = rest * v + 2.631124854e-1f;
  rest = rest * v - 1.151304603f;
  rest = rest * v - 9.999935627e-1f;
  const float tail = exp2f(rest - u * u * 0.7213475204f);
  return x * (x < 0.0f ? tail : 1.0f - tail);
}

// The same for a result that is stored as T.
template <typename T, typename A>
__device__ __forceinline__ A activate_for(Activation activation, A x) {
  if constexpr (std::is_same_v<A, float> && sizeof(T) == 2)
    if (activation == Activation::gelu) return short_gelu(x);
  return activate(activation, x);
}

// Calls `work(Tag<T>())` with the device type of anything that MatMul takes.
template <typename Work>
void with_number_type(DType dtype, const Work& work) {
  if (dtype == DType::f64) return work(Tag<double>());
  if (is_kernel_float(dtype)) return with_float_type(dtype, work);
  with_integer_type(dtype, work);
}

}  // namespace tandem::cuda
