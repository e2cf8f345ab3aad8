// The vectorised conversions against core/half.h: every 16-bit code, and floats at and around every rounding border.
#include "ops/convert_cpu.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <random>
#include <vector>

#include "core/half.h"

namespace tandem::test {
namespace {

struct Half {
  DType dtype;
  float (*widen)(std::uint16_t);
  std::uint16_t (*narrow)(float);
};
const Half kHalves[] = {{DType::f16, f16_to_float, float_to_f16}, {DType::bf16, bf16_to_float, float_to_bf16}};

bool same(float a, float b) { return std::isnan(a) ? std::isnan(b) : std::bit_cast<std::uint32_t>(a) == std::bit_cast<std::uint32_t>(b); }

TEST(Convert, EveryCode) {
  std::vector<std::uint16_t> codes(1 << 16);
  for (std::size_t i = 0; i < codes.size(); ++i) codes[i] = static_cast<std::uint16_t>(i);
  for (const Half& half : kHalves) {
    std::vector<float> floats(codes.size());
    to_floats(half.dtype, reinterpret_cast<const std::byte*>(codes.data()), floats.data(), static_cast<std::int64_t>(codes.size()));
    for (std::size_t i = 0; i < codes.size(); ++i)
      ASSERT_TRUE(same(floats[i], half.widen(codes[i]))) << to_string(half.dtype) << " code " << i << " gave " << floats[i];
  }
}

// A float for each code, the one halfway to the next code, both neighbours of each, and random bits.
std::vector<float> borders(const Half& half) {
  std::vector<float> floats;
  for (std::uint32_t code = 0; code < 1 << 16; ++code) {
    const float at = half.widen(static_cast<std::uint16_t>(code)), next = half.widen(static_cast<std::uint16_t>(code + 1));
    for (const float f : {at, at / 2 + next / 2})
      for (const float g : {std::nextafterf(f, -INFINITY), f, std::nextafterf(f, INFINITY)}) floats.push_back(g);
  }
  std::mt19937 random(7);
  for (int i = 0; i < 100'000; ++i) floats.push_back(std::bit_cast<float>(static_cast<std::uint32_t>(random())));
  for (const float f : {65519.996f, 65520.0f, 65536.0f, 3e38f, INFINITY, -INFINITY, 0.0f, -0.0f, 1e-30f, -1e-45f}) floats.push_back(f);
  return floats;
}

TEST(Convert, EveryRoundingBorder) {
  for (const Half& half : kHalves) {
    const std::vector<float> floats = borders(half);
    std::vector<std::uint16_t> codes(floats.size());
    from_floats(half.dtype, floats.data(), reinterpret_cast<std::byte*>(codes.data()), static_cast<std::int64_t>(floats.size()));
    for (std::size_t i = 0; i < floats.size(); ++i) {
      if (std::isnan(floats[i])) ASSERT_TRUE(std::isnan(half.widen(codes[i]))) << to_string(half.dtype) << " " << i;
      else ASSERT_EQ(codes[i], half.narrow(floats[i])) << to_string(half.dtype) << " of " << floats[i];
    }
  }
}

TEST(Convert, EveryLength) {
  for (const Half& half : kHalves)
    for (std::size_t n = 0; n < 70; ++n) {
      std::vector<float> floats(n), more(n);
      std::vector<std::uint16_t> codes(n + 1, 0xabcd), added(n + 1, 0xabcd);
      for (std::size_t i = 0; i < n; ++i) floats[i] = static_cast<float>(i) + 0.5f;
      const auto count = static_cast<std::int64_t>(n);
      from_floats(half.dtype, floats.data(), reinterpret_cast<std::byte*>(codes.data()), count);
      from_floats_plus(half.dtype, floats.data(), reinterpret_cast<const std::byte*>(codes.data()),
                       reinterpret_cast<std::byte*>(added.data()), count);
      for (std::size_t i = 0; i < n; ++i) {
        ASSERT_EQ(codes[i], half.narrow(floats[i])) << n;
        ASSERT_EQ(added[i], half.narrow(floats[i] + half.widen(codes[i]))) << n;
      }
      ASSERT_EQ(codes[n], 0xabcd) << n;
      ASSERT_EQ(added[n], 0xabcd) << n;
    }
}

}  // namespace
}  // namespace tandem::test
