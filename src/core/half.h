// Conversions between float and the 16- and 8-bit floats; rounding to nearest even, NaN kept, overflow to infinity (f8e4m3: to NaN).
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>

namespace tandem {

inline float bf16_to_float(std::uint16_t h) { return std::bit_cast<float>(static_cast<std::uint32_t>(h) << 16); }

inline std::uint16_t float_to_bf16(float f) {
  const auto u = std::bit_cast<std::uint32_t>(f);
  if (std::isnan(f)) return static_cast<std::uint16_t>((u >> 16) | 0x40);
  return static_cast<std::uint16_t>((u + 0x7fff + ((u >> 16) & 1)) >> 16);
}

// A small float with `kExponent` exponent and `kMantissa` mantissa bits, IEEE layout.
template <int kExponent, int kMantissa>
float small_to_float(std::uint32_t h) {
  constexpr int bias = (1 << (kExponent - 1)) - 1;
  const std::uint32_t sign = (h >> (kExponent + kMantissa)) & 1, mantissa = h & ((1u << kMantissa) - 1);
  const int exponent = static_cast<int>((h >> kMantissa) & ((1u << kExponent) - 1));
  float value;
  if (exponent == (1 << kExponent) - 1) value = mantissa ? NAN : INFINITY;
  else if (exponent == 0) value = std::ldexp(static_cast<float>(mantissa), 1 - bias - kMantissa);
  else value = std::ldexp(static_cast<float>(mantissa | (1u << kMantissa)), exponent - bias - kMantissa);
  return sign ? -value : value;
}

// Rounds to nearest even in the target's precision, then encodes; overflow becomes infinity.
template <int kExponent, int kMantissa>
std::uint32_t float_to_small(float f) {
  constexpr int bias = (1 << (kExponent - 1)) - 1, top = (1 << kExponent) - 1;
  const std::uint32_t sign = (std::bit_cast<std::uint32_t>(f) >> 31) << (kExponent + kMantissa);
  if (std::isnan(f)) return sign | (static_cast<std::uint32_t>(top) << kMantissa) | (1u << (kMantissa - 1));
  const float a = std::fabs(f);
  if (std::isinf(a)) return sign | (static_cast<std::uint32_t>(top) << kMantissa);
  if (a == 0) return sign;
  int exponent = std::ilogb(a);
  if (exponent < 1 - bias) exponent = 1 - bias;  // subnormals share the smallest exponent
  const auto scaled = static_cast<std::uint32_t>(std::nearbyint(std::ldexp(a, kMantissa - exponent)));
  // A carry out of the mantissa raises the exponent by the same addition.
  const std::uint32_t base = static_cast<std::uint32_t>(exponent + bias - 1) << kMantissa;
  const std::uint32_t code = base + scaled;
  return sign | (code >= static_cast<std::uint32_t>(top) << kMantissa ? static_cast<std::uint32_t>(top) << kMantissa : code);
}

inline float f16_to_float(std::uint16_t h) { return small_to_float<5, 10>(h); }
inline std::uint16_t float_to_f16(float f) { return static_cast<std::uint16_t>(float_to_small<5, 10>(f)); }
inline float f8e5m2_to_float(std::uint8_t h) { return small_to_float<5, 2>(h); }
inline std::uint8_t float_to_f8e5m2(float f) { return static_cast<std::uint8_t>(float_to_small<5, 2>(f)); }

// f8e4m3 (OCP "fn"): no infinity, NaN is all ones, largest value 448.
inline float f8e4m3_to_float(std::uint8_t h) {
  if ((h & 0x7f) == 0x7f) return NAN;
  if ((h & 0x78) == 0x78) return std::ldexp(8.0f + static_cast<float>(h & 7), 5) * ((h & 0x80) ? -1.0f : 1.0f);
  return small_to_float<4, 3>(h);
}

inline std::uint8_t float_to_f8e4m3(float f) {
  const auto sign = static_cast<std::uint8_t>(std::signbit(f) ? 0x80 : 0);
  const float a = std::fabs(f);
  if (!(a <= 464.0f)) return sign | 0x7f;  // 464 is halfway between 448 and the missing 480; ties go to the even 448
  if (a < 256.0f) {
    const std::uint32_t code = float_to_small<4, 3>(a);
    return sign | static_cast<std::uint8_t>(code);
  }
  return sign | static_cast<std::uint8_t>(0x78 + static_cast<int>(std::nearbyint(a / 32.0f)) - 8);
}

}  // namespace tandem
