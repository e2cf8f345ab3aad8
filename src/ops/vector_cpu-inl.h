// Vectors of floats for the kernels: loads and stores of f32, f16 and bf16, and the functions Highway lacks.
// Included once per target through foreach_target.h, hence the guard that toggles.
#if defined(TANDEM_VECTOR_CPU_INL) == defined(HWY_TARGET_TOGGLE)
#ifdef TANDEM_VECTOR_CPU_INL
#undef TANDEM_VECTOR_CPU_INL
#else
#define TANDEM_VECTOR_CPU_INL
#endif

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>

#include "hwy/highway.h"
#include "ops/half_types_cpu.h"

HWY_BEFORE_NAMESPACE();
namespace tandem {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

using F32 = hn::ScalableTag<float>;
using V32 = hn::Vec<F32>;

// --- Loads and stores of whole vectors.
HWY_INLINE V32 load(F32 d, const float* p) { return hn::LoadU(d, p); }
HWY_INLINE void store(F32 d, V32 v, float* p) { hn::StoreU(v, d, p); }

HWY_INLINE V32 load(F32 d, const Bf16* p) {
  const hn::Rebind<std::uint16_t, F32> d16;
  const hn::Rebind<std::uint32_t, F32> d32;
  return hn::BitCast(d, hn::ShiftLeft<16>(hn::PromoteTo(d32, hn::LoadU(d16, reinterpret_cast<const std::uint16_t*>(p)))));
}
HWY_INLINE void store(F32 d, V32 v, Bf16* p) {
  const hn::Rebind<std::uint16_t, F32> d16;
  const hn::RebindToUnsigned<F32> d32;
  const hn::Rebind<std::int32_t, F32> di;
  const auto u = hn::BitCast(d32, v);
  const auto odd = hn::And(hn::ShiftRight<16>(u), hn::Set(d32, 1u));
  const auto rounded = hn::ShiftRight<16>(hn::Add(u, hn::Add(odd, hn::Set(d32, 0x7fffu))));
  const auto quiet = hn::Or(hn::ShiftRight<16>(u), hn::Set(d32, 0x40u));
  const auto bits = hn::IfThenElse(hn::RebindMask(d32, hn::IsNaN(v)), quiet, rounded);
  (void)d;
  hn::StoreU(hn::DemoteTo(d16, hn::BitCast(di, bits)), d16, reinterpret_cast<std::uint16_t*>(p));
}

#if !HWY_ARCH_X86 || HWY_TARGET <= HWY_AVX2
HWY_INLINE V32 load(F32 d, const F16* p) {
  const hn::Rebind<hwy::float16_t, F32> d16;
  return hn::PromoteTo(d, hn::LoadU(d16, reinterpret_cast<const hwy::float16_t*>(p)));
}
HWY_INLINE void store(F32 d, V32 v, F16* p) {
  const hn::Rebind<hwy::float16_t, F32> d16;
  (void)d;
  hn::StoreU(hn::DemoteTo(d16, v), d16, reinterpret_cast<hwy::float16_t*>(p));
}
#else
// Where the machine has no such instruction, Highway truncates and knows neither infinity nor NaN; this does what the instruction does.
HWY_INLINE V32 load(F32 d, const F16* p) {
  const hn::Rebind<std::uint16_t, F32> d16;
  const hn::RebindToUnsigned<F32> d32;
  const hn::RebindToSigned<F32> di;
  const auto code = hn::PromoteTo(d32, hn::LoadU(d16, reinterpret_cast<const std::uint16_t*>(p)));
  const auto size = hn::And(code, hn::Set(d32, 0x7fffu));
  const auto rebased = hn::Add(hn::ShiftLeft<13>(size), hn::Set(d32, 112u << 23));
  const V32 normal = hn::BitCast(d, rebased), special = hn::BitCast(d, hn::Add(rebased, hn::Set(d32, 112u << 23)));
  const V32 count = hn::ConvertTo(d, hn::BitCast(di, size));
  const V32 subnormal = hn::Mul(count, hn::Set(d, 5.9604644775390625e-8f));
  const V32 infinite_or_nan = hn::IfThenElse(hn::IsNaN(special), hn::Or(special, hn::BitCast(d, hn::Set(d32, 0x400000u))), special);
  const V32 magnitude = hn::IfThenElse(hn::Lt(count, hn::Set(d, 1024.0f)), subnormal,
                                       hn::IfThenElse(hn::Lt(count, hn::Set(d, 31744.0f)), normal, infinite_or_nan));
  return hn::Or(magnitude, hn::BitCast(d, hn::ShiftLeft<16>(hn::Xor(code, size))));
}
HWY_INLINE void store(F32 d, V32 v, F16* p) {
  const hn::Rebind<std::uint16_t, F32> d16;
  const hn::RebindToUnsigned<F32> d32;
  const hn::RebindToSigned<F32> di;
  const V32 a = hn::Abs(v);
  const auto bits = hn::BitCast(d32, a);
  const auto sign = hn::ShiftRight<16>(hn::Xor(hn::BitCast(d32, v), bits));
  const auto to_even = hn::Add(hn::And(hn::ShiftRight<13>(bits), hn::Set(d32, 1u)), hn::Set(d32, 0xfffu));
  const auto normal = hn::ShiftRight<13>(hn::Sub(hn::Add(bits, to_even), hn::Set(d32, 112u << 23)));
  // The last bit of 0.5 weighs what the last bit of a subnormal f16 does, so the adder rounds.
  const V32 half = hn::Set(d, 0.5f);
  const auto subnormal = hn::Sub(hn::BitCast(d32, hn::Add(a, half)), hn::BitCast(d32, half));
  const auto nan = hn::Or(hn::And(hn::ShiftRight<13>(bits), hn::Set(d32, 0x3ffu)), hn::Set(d32, 0x7e00u));
  const auto within = hn::IfThenElse(hn::RebindMask(d32, hn::Lt(a, hn::Set(d, 6.103515625e-5f))), subnormal, normal);
  const auto number = hn::IfThenElse(hn::RebindMask(d32, hn::Ge(a, hn::Set(d, 65520.0f))), hn::Set(d32, 0x7c00u), within);
  const auto code = hn::Or(sign, hn::IfThenElse(hn::RebindMask(d32, hn::IsNaN(v)), nan, number));
  hn::StoreU(hn::DemoteTo(d16, hn::BitCast(di, code)), d16, reinterpret_cast<std::uint16_t*>(p));
}
#endif

// --- The first `count` lanes (fewer than a vector); the others read as zero and are not written.
HWY_INLINE V32 load_part(F32 d, const float* p, std::size_t count) { return hn::MaskedLoad(hn::FirstN(d, count), d, p); }
HWY_INLINE void store_part(F32 d, V32 v, float* p, std::size_t count) { hn::BlendedStore(v, hn::FirstN(d, count), d, p); }
template <typename T>
HWY_INLINE V32 load_part(F32 d, const T* p, std::size_t count) {
  T buffer[HWY_MAX_BYTES / sizeof(float)] = {};
  std::memcpy(buffer, p, count * sizeof(T));
  return load(d, buffer);
}
template <typename T>
HWY_INLINE void store_part(F32 d, V32 v, T* p, std::size_t count) {
  T buffer[HWY_MAX_BYTES / sizeof(float)];
  store(d, v, buffer);
  std::memcpy(p, buffer, count * sizeof(T));
}

// --- Functions. NaN in gives NaN out.

// Within low and high, NaN as it is: what Min and Max make of NaN differs between targets.
HWY_INLINE V32 clamped(F32 d, V32 x, float low, float high) {
  const V32 l = hn::Set(d, low), h = hn::Set(d, high);
  return hn::IfThenElse(hn::Lt(x, l), l, hn::IfThenElse(hn::Gt(x, h), h, x));
}

HWY_INLINE V32 positive(F32 d, V32 x) { return hn::IfThenElse(hn::Lt(x, hn::Zero(d)), hn::Zero(d), x); }

// 2^(x·log₂e) as p·2^n: p by a polynomial of what rounding to n leaves; relative error about 1e-7.
HWY_INLINE V32 exp_fraction(F32 d, V32 x, V32& n) {
  n = hn::Round(hn::Mul(x, hn::Set(d, 1.44269504088896341f)));
  V32 r = hn::NegMulAdd(n, hn::Set(d, 0.693359375f), x);
  r = hn::NegMulAdd(n, hn::Set(d, -2.12194440e-4f), r);
  V32 p = hn::Set(d, 1.9875691500e-4f);
  p = hn::MulAdd(p, r, hn::Set(d, 1.3981999507e-3f));
  p = hn::MulAdd(p, r, hn::Set(d, 8.3334519073e-3f));
  p = hn::MulAdd(p, r, hn::Set(d, 4.1665795894e-2f));
  p = hn::MulAdd(p, r, hn::Set(d, 1.6666665459e-1f));
  p = hn::MulAdd(p, r, hn::Set(d, 5.0000001201e-1f));
  return hn::Add(hn::MulAdd(hn::Mul(p, r), r, r), hn::Set(d, 1.0f));
}

// 0 below the normal floats.
HWY_INLINE V32 fast_exp(F32 d, V32 x) {
  const hn::RebindToSigned<F32> di;
  const V32 low = hn::Set(d, -86.6f);
  V32 n;
  const V32 p = exp_fraction(d, clamped(d, x, -86.6f, 88.8f), n);
  // 2^n as 2 · 2^(n-1), so that n = 128 stays representable.
  const auto power = hn::ShiftLeft<23>(hn::Add(hn::ConvertTo(di, n), hn::Set(di, 126)));
  const V32 y = hn::Mul(hn::Add(p, p), hn::BitCast(d, power));
  return hn::IfThenZeroElse(hn::Lt(x, low), y);
}

// The same for x that is not above 0 by more than rounding, or is no number.
HWY_INLINE V32 exp_below(F32 d, V32 x) {
  const hn::RebindToSigned<F32> di;
  const V32 low = hn::Set(d, -86.6f);
  V32 n;
  const auto under = hn::Lt(x, low);
  const V32 p = exp_fraction(d, hn::IfThenElse(under, low, x), n);
  const auto power = hn::ShiftLeft<23>(hn::Add(hn::ConvertTo(di, n), hn::Set(di, 127)));
  return hn::IfThenZeroElse(under, hn::Mul(p, hn::BitCast(d, power)));
}

// Rational approximation on [-4, 4] (the one of Eigen and XLA); absolute error below 1e-6.
HWY_INLINE V32 erf(F32 d, V32 x) {
  x = clamped(d, x, -4.0f, 4.0f);
  const V32 x2 = hn::Mul(x, x);
  V32 a = hn::Set(d, -2.72614225801306e-10f);
  a = hn::MulAdd(a, x2, hn::Set(d, 2.77068142495902e-08f));
  a = hn::MulAdd(a, x2, hn::Set(d, -2.10102402082508e-06f));
  a = hn::MulAdd(a, x2, hn::Set(d, -5.69250639462346e-05f));
  a = hn::MulAdd(a, x2, hn::Set(d, -7.34990630326855e-04f));
  a = hn::MulAdd(a, x2, hn::Set(d, -2.95459980854025e-03f));
  a = hn::MulAdd(a, x2, hn::Set(d, -1.60960333262415e-02f));
  V32 b = hn::Set(d, -1.45660718464996e-05f);
  b = hn::MulAdd(b, x2, hn::Set(d, -2.13374055278905e-04f));
  b = hn::MulAdd(b, x2, hn::Set(d, -1.68282697438203e-03f));
  b = hn::MulAdd(b, x2, hn::Set(d, -7.37332916720468e-03f));
  b = hn::MulAdd(b, x2, hn::Set(d, -1.42647390514189e-02f));
  return hn::Div(hn::Mul(x, a), b);
}

// Rational approximation on [-9, 9] (the one of Eigen).
HWY_INLINE V32 tanh(F32 d, V32 v) {
  const V32 x = clamped(d, v, -7.90531110763549805f, 7.90531110763549805f);
  const V32 x2 = hn::Mul(x, x);
  V32 a = hn::Set(d, -2.76076847742355e-16f);
  a = hn::MulAdd(a, x2, hn::Set(d, 2.00018790482477e-13f));
  a = hn::MulAdd(a, x2, hn::Set(d, -8.60467152213735e-11f));
  a = hn::MulAdd(a, x2, hn::Set(d, 5.12229709037114e-08f));
  a = hn::MulAdd(a, x2, hn::Set(d, 1.48572235717979e-05f));
  a = hn::MulAdd(a, x2, hn::Set(d, 6.37261928875436e-04f));
  a = hn::MulAdd(a, x2, hn::Set(d, 4.89352455891786e-03f));
  V32 b = hn::Set(d, 1.19825839466702e-06f);
  b = hn::MulAdd(b, x2, hn::Set(d, 1.18534705686654e-04f));
  b = hn::MulAdd(b, x2, hn::Set(d, 2.26843463243900e-03f));
  b = hn::MulAdd(b, x2, hn::Set(d, 4.89352518554385e-03f));
  return hn::IfThenElse(hn::Lt(hn::Abs(v), hn::Set(d, 0.0004f)), v, hn::Div(hn::Mul(x, a), b));
}

HWY_INLINE V32 sigmoid(F32 d, V32 x) {
  const V32 one = hn::Set(d, 1.0f);
  return hn::Div(one, hn::Add(one, fast_exp(d, hn::Neg(x))));
}
HWY_INLINE V32 silu(F32 d, V32 x) { return hn::Mul(x, sigmoid(d, x)); }
HWY_INLINE V32 gelu(F32 d, V32 x) {
  const V32 half = hn::Mul(x, hn::Set(d, 0.5f));
  return hn::MulAdd(half, erf(d, hn::Mul(x, hn::Set(d, 0.70710678118654752f))), half);
}
// x/2·(1 + tanh u) = x·sigmoid(2u), which is exact where tanh nears -1.
HWY_INLINE V32 gelu_tanh(F32 d, V32 x) {
  const V32 cubic = hn::MulAdd(hn::Mul(x, x), hn::Set(d, 0.044715f), hn::Set(d, 1.0f));
  return hn::Mul(x, sigmoid(d, hn::Mul(hn::Mul(x, cubic), hn::Set(d, 1.59576912160573072f))));
}

}  // namespace HWY_NAMESPACE
}  // namespace tandem
HWY_AFTER_NAMESPACE();

#endif
