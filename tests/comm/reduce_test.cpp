// The vectorised conversions and reductions against core/half.h, exhaustively where that is possible.
#include "comm/reduce.h"

#include <gtest/gtest.h>

#include <cmath>
#include <numeric>
#include <random>

#include "core/tensor.h"

namespace tandem {
namespace {

// All pairs of 8-bit codes; for 16-bit types every code against random ones.
std::pair<Tensor, Tensor> operands(DType dtype) {
  const std::int64_t count = 1 << 16;
  Tensor a(dtype, {count}), b(dtype, {count});
  std::mt19937_64 random(3);
  for (std::int64_t i = 0; i < count; ++i) {
    if (bits(dtype) == 8) {
      a.mutable_data()[i] = static_cast<std::byte>(i);
      b.mutable_data()[i] = static_cast<std::byte>(i >> 8);
    } else {
      a.mutable_as<std::uint16_t>()[i] = static_cast<std::uint16_t>(i);
      // Often a neighbour in magnitude, so that sums cancel, round at halves, and fall among the subnormals.
      b.mutable_as<std::uint16_t>()[i] =
          static_cast<std::uint16_t>(i % 2 ? random() : static_cast<std::uint64_t>(i) ^ 0x8000 ^ (random() & 0xfff));
    }
  }
  return {a, b};
}

void expect_rounded(DType dtype, const Tensor& out, std::int64_t i, float exact) {
  std::byte memory[8];
  store_element(dtype, memory, 0, static_cast<double>(exact));
  const double expected = load_element(dtype, memory, 0), got = out.at(i);
  if (std::isnan(expected)) ASSERT_TRUE(std::isnan(got)) << to_string(dtype) << " " << i;
  else ASSERT_EQ(got, expected) << to_string(dtype) << " " << i;
}

TEST(Reduce, SmallFloatsRoundOnce) {
  for (const DType dtype : {DType::f16, DType::bf16, DType::f8e4m3, DType::f8e5m2}) {
    const auto [a, b] = operands(dtype);
    Tensor out(dtype, a.shape());
    const void* sources[] = {a.data(), b.data(), a.data()};
    find_reducer(dtype, Reduction::sum)(out.mutable_data(), sources, 2, static_cast<std::size_t>(a.count()));
    for (std::int64_t i = 0; i < a.count(); ++i) expect_rounded(dtype, out, i, static_cast<float>(a.at(i)) + static_cast<float>(b.at(i)));
    find_reducer(dtype, Reduction::prod)(out.mutable_data(), sources, 3, static_cast<std::size_t>(a.count()));
    for (std::int64_t i = 0; i < a.count(); ++i)
      expect_rounded(dtype, out, i, static_cast<float>(a.at(i)) * static_cast<float>(b.at(i)) * static_cast<float>(a.at(i)));
  }
}

TEST(Reduce, EveryLengthAndPlace) {
  std::vector<float> a(4200), b(4200), out(4200);
  std::iota(a.begin(), a.end(), 0.5f);
  std::iota(b.begin(), b.end(), -7.0f);
  for (const std::size_t n : {0u, 1u, 2u, 15u, 16u, 17u, 63u, 1023u, 1024u, 1025u, 4097u})
    for (const std::size_t ranks : {1u, 2u, 3u, 5u}) {
      std::fill(out.begin(), out.end(), -1.0f);
      const void* sources[] = {a.data() + 1, b.data(), a.data(), a.data(), b.data() + 3};
      find_reducer(DType::f32, Reduction::sum)(out.data() + 1, sources, ranks, n);
      for (std::size_t i = 0; i < n; ++i) {
        float sum = 0;
        for (std::size_t r = 0; r < ranks; ++r) sum += static_cast<const float*>(sources[r])[i];
        ASSERT_EQ(out[i + 1], sum) << n << " " << ranks << " " << i;
      }
      ASSERT_EQ(out[0], -1.0f);
      ASSERT_EQ(out[n + 1], -1.0f);
    }
}

TEST(Reduce, IntegersWrapAndTruncate) {
  const std::int8_t a[] = {100, -100, -3, 3, -128}, b[] = {100, -100, -2, 2, -1};
  const void* sources[] = {a, b};
  std::int8_t out[5];
  find_reducer(DType::i8, Reduction::avg)(out, sources, 2, 5);
  EXPECT_EQ(out[0], -28);  // the sum wraps to −56
  EXPECT_EQ(out[1], 28);
  EXPECT_EQ(out[2], -2);  // −5 / 2 truncates toward zero
  EXPECT_EQ(out[3], 2);
  EXPECT_EQ(out[4], 63);  // −129 wraps to 127
}

TEST(Reduce, NoReducerForOtherTypes) {
  for (const DType dtype : {DType::boolean, DType::i4, DType::u4}) EXPECT_EQ(find_reducer(dtype, Reduction::sum), nullptr);
}

}  // namespace
}  // namespace tandem
