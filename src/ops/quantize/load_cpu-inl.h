// Vectors of floats from quantised numbers. Included once per target through foreach_target.h, hence the guard that toggles.
#if defined(TANDEM_QUANTIZE_LOAD_CPU_INL) == defined(HWY_TARGET_TOGGLE)
#ifdef TANDEM_QUANTIZE_LOAD_CPU_INL
#undef TANDEM_QUANTIZE_LOAD_CPU_INL
#else
#define TANDEM_QUANTIZE_LOAD_CPU_INL
#endif

#include <type_traits>

#include "core/check.h"
#include "ops/quantize/types_cpu.h"
#include "ops/vector_cpu-inl.h"

HWY_BEFORE_NAMESPACE();
namespace tandem {
namespace HWY_NAMESPACE {

template <typename T>
HWY_INLINE V32 load_integers(F32 d, const T* p) {
  const hn::RebindToSigned<F32> di;
  const hn::Rebind<T, F32> dt;
  (void)d;
  return hn::ConvertTo(d, hn::PromoteTo(di, hn::LoadU(dt, p)));
}

HWY_INLINE V32 load_quantized(F32 d, const std::int8_t* p) { return load_integers(d, p); }
HWY_INLINE V32 load_quantized(F32 d, const std::uint8_t* p) { return load_integers(d, p); }
HWY_INLINE V32 load_quantized(F32 d, const std::int16_t* p) { return load_integers(d, p); }
HWY_INLINE V32 load_quantized(F32 d, const std::uint16_t* p) { return load_integers(d, p); }
HWY_INLINE V32 load_quantized(F32 d, const std::int32_t* p) { return hn::ConvertTo(d, hn::LoadU(hn::RebindToSigned<F32>(), p)); }

// A normal code is an f32 but for the bias; subnormal ones count steps.
template <int kMantissa, int kBias>
HWY_INLINE V32 from_code(F32 d, hn::Vec<hn::RebindToUnsigned<F32>> code) {
  const hn::RebindToUnsigned<F32> d32;
  const hn::RebindToSigned<F32> di;
  const auto size = hn::And(code, hn::Set(d32, 0x7fu));
  const auto rebased = hn::Add(hn::ShiftLeft<23 - kMantissa>(size), hn::Set(d32, static_cast<std::uint32_t>(127 - kBias) << 23));
  const V32 normal = hn::BitCast(d, rebased);
  const V32 count = hn::ConvertTo(d, hn::BitCast(di, size));
  const V32 step = hn::BitCast(d, hn::Set(d32, static_cast<std::uint32_t>(127 + 1 - kBias - kMantissa) << 23));
  const V32 nan = hn::BitCast(d, hn::Set(d32, 0x7fc00000u));
  V32 value = hn::IfThenElse(hn::Lt(count, hn::Set(d, static_cast<float>(1 << kMantissa))), hn::Mul(count, step), normal);
  if constexpr (kMantissa == 3) {
    value = hn::IfThenElse(hn::Gt(count, hn::Set(d, 126.0f)), nan, value);
  } else {
    const V32 infinity = hn::BitCast(d, hn::Set(d32, 0x7f800000u));
    value = hn::IfThenElse(hn::Gt(count, hn::Set(d, 123.0f)), hn::IfThenElse(hn::Gt(count, hn::Set(d, 124.0f)), nan, infinity), value);
  }
  return hn::Or(value, hn::BitCast(d, hn::ShiftLeft<24>(hn::Xor(code, size))));
}

template <typename T>
HWY_INLINE hn::Vec<hn::RebindToUnsigned<F32>> load_codes(F32, const T* p) {
  const hn::Rebind<std::uint8_t, F32> d8;
  return hn::PromoteTo(hn::RebindToUnsigned<F32>(), hn::LoadU(d8, reinterpret_cast<const std::uint8_t*>(p)));
}
HWY_INLINE V32 load_quantized(F32 d, const F8e4m3* p) { return from_code<3, 7>(d, load_codes(d, p)); }
HWY_INLINE V32 load_quantized(F32 d, const F8e5m2* p) { return from_code<2, 15>(d, load_codes(d, p)); }

// As many bytes as there are lanes: their low halves and their high ones.
HWY_INLINE void load_quantized_pairs(F32 d, const U4x2* p, V32& low, V32& high) {
  const hn::RebindToSigned<F32> di;
  const auto code = load_codes(d, p);
  low = hn::ConvertTo(d, hn::BitCast(di, hn::And(code, hn::Set(hn::RebindToUnsigned<F32>(), 15u))));
  high = hn::ConvertTo(d, hn::BitCast(di, hn::ShiftRight<4>(code)));
}
HWY_INLINE void load_quantized_pairs(F32 d, const I4x2* p, V32& low, V32& high) {
  const hn::RebindToSigned<F32> di;
  const auto code = hn::BitCast(di, load_codes(d, p));
  low = hn::ConvertTo(d, hn::ShiftRight<28>(hn::ShiftLeft<28>(code)));
  high = hn::ConvertTo(d, hn::ShiftRight<28>(hn::ShiftLeft<24>(code)));
}

}  // namespace HWY_NAMESPACE
}  // namespace tandem
HWY_AFTER_NAMESPACE();

#endif
