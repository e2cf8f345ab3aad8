#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/quantize/convert_quantized_cpu.cpp"
#include "hwy/foreach_target.h"
// Highway's order: foreach_target first.
#include <bit>

#include "core/check.h"
#include "core/tensor.h"
#include "ops/quantize/convert_quantized_cpu.h"
#include "ops/quantize/load_cpu-inl.h"

HWY_BEFORE_NAMESPACE();
namespace tandem {
namespace HWY_NAMESPACE {

template <typename T>
void load_run(const T* from, float* to, std::int64_t count) {
  const F32 d;
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(d));
  std::int64_t i = 0;
  for (; i + lanes <= count; i += lanes) hn::StoreU(load_quantized(d, from + i), d, to + i);
  const auto left = static_cast<std::size_t>(count - i);
  if (left == 0 || left >= hn::Lanes(d)) return;
  T rest[HWY_MAX_BYTES / sizeof(float)] = {};
  std::memcpy(rest, from + i, left * sizeof(T));
  store_part(d, load_quantized(d, rest), to + i, left);
}

// Two numbers to a byte, the first of a byte first. Runs that begin inside a byte begin with one number alone.
template <typename T>
void load_nibbles(const T* from, std::int64_t first, float* to, std::int64_t count) {
  const F32 d;
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(d));
  const DType type = std::is_same_v<T, I4x2> ? DType::i4 : DType::u4;
  const auto* bytes = reinterpret_cast<const std::byte*>(from);
  std::int64_t i = 0;
  if (count > 0 && first % 2 != 0) to[i++] = static_cast<float>(load_int(type, bytes, first));
  for (; i + 2 * lanes <= count; i += 2 * lanes) {
    V32 low, high;
    load_quantized_pairs(d, from + (first + i) / 2, low, high);
    hn::StoreInterleaved2(low, high, d, to + i);
  }
  for (; i < count; ++i) to[i] = static_cast<float>(load_int(type, bytes, first + i));
}

template <typename T>
void store_run(const float* from, T* to, std::int64_t count) {
  const F32 d;
  const hn::RebindToSigned<F32> di;
  const hn::Rebind<T, F32> dt;
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(d));
  std::int64_t i = 0;
  for (; i + lanes <= count; i += lanes) hn::StoreU(hn::DemoteTo(dt, hn::ConvertTo(di, hn::LoadU(d, from + i))), dt, to + i);
  for (; i < count; ++i) to[i] = static_cast<T>(from[i]);
}

// Codes of 8-bit floats: kMantissa bits behind an exponent whose bias is kBias.
template <int kMantissa, int kBias>
void store_small(const float* from, std::uint8_t* to, std::int64_t count) {
  constexpr int kShift = 23 - kMantissa;
  constexpr float kLeast = std::bit_cast<float>(static_cast<std::uint32_t>(127 + 1 - kBias) << 23);  // normal number
  // Its last bit weighs what the last bit of a subnormal code does, so the adder rounds.
  constexpr float kAdder = std::bit_cast<float>(static_cast<std::uint32_t>(127 + 1 - kBias - kMantissa + 23) << 23);
  for (std::int64_t i = 0; i < count; ++i) {
    const auto bits = std::bit_cast<std::uint32_t>(from[i]), size = bits & 0x7fffffffu;
    const float a = std::bit_cast<float>(size);
    const std::uint32_t rounded = (size + ((size >> kShift) & 1) + (1u << (kShift - 1)) - 1) >> kShift;
    const std::uint32_t normal = rounded - (static_cast<std::uint32_t>(127 - kBias) << kMantissa);
    const std::uint32_t subnormal = std::bit_cast<std::uint32_t>(a + kAdder) - std::bit_cast<std::uint32_t>(kAdder);
    const std::uint32_t nan = kMantissa == 3 ? 0x7fu : 0x7eu;
    const std::uint32_t code = size > 0x7f800000u ? nan : a < kLeast ? subnormal : normal;
    to[i] = static_cast<std::uint8_t>(code | (bits >> 31 << 7));
  }
}

void to_floats_run(DType type, const std::byte* from, std::int64_t first, float* to, std::int64_t count) {
  with_quantized_type(type, [&](auto* t) {
    using T = std::remove_pointer_t<decltype(t)>;
    if constexpr (is_pair<T>) load_nibbles(reinterpret_cast<const T*>(from), first, to, count);
    else load_run(reinterpret_cast<const T*>(from) + first, to, count);
  });
}

void from_floats_run(DType type, const float* from, std::byte* to, std::int64_t first, std::int64_t count) {
  switch (type) {
    case DType::i8: return store_run(from, reinterpret_cast<std::int8_t*>(to) + first, count);
    case DType::u8: return store_run(from, reinterpret_cast<std::uint8_t*>(to) + first, count);
    case DType::i16: return store_run(from, reinterpret_cast<std::int16_t*>(to) + first, count);
    case DType::u16: return store_run(from, reinterpret_cast<std::uint16_t*>(to) + first, count);
    case DType::f8e4m3: return store_small<3, 7>(from, reinterpret_cast<std::uint8_t*>(to) + first, count);
    case DType::f8e5m2: return store_small<2, 15>(from, reinterpret_cast<std::uint8_t*>(to) + first, count);
    default: break;
  }
  for (std::int64_t i = 0; i < count; ++i) store_int(type, to, first + i, static_cast<std::int64_t>(from[i]));
}

}  // namespace HWY_NAMESPACE
}  // namespace tandem
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace tandem {
HWY_EXPORT(to_floats_run);
HWY_EXPORT(from_floats_run);

bool converts_quantized(DType type) {
  switch (type) {
    case DType::i4:
    case DType::u4:
    case DType::i8:
    case DType::u8:
    case DType::i16:
    case DType::u16:
    case DType::i32:
    case DType::f8e4m3:
    case DType::f8e5m2: return true;
    default: return false;
  }
}

void quantized_to_floats(DType type, const std::byte* from, std::int64_t first, float* to, std::int64_t count) {
  HWY_DYNAMIC_DISPATCH(to_floats_run)(type, from, first, to, count);
}

void floats_to_quantized(DType type, const float* from, std::byte* to, std::int64_t first, std::int64_t count) {
  check(converts_quantized(type) && type != DType::i32, "a type that quantised numbers are stored in");
  HWY_DYNAMIC_DISPATCH(from_floats_run)(type, from, to, first, count);
}

}  // namespace tandem
#endif
