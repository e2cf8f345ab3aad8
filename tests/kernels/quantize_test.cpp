#include <gtest/gtest.h>

#include <cmath>

#include "kernels/kernel_case.h"
#include "ops/quantize/convert_quantized_cpu.h"
#include "ops/quantize/scales.h"

namespace tandem::test {
namespace {

const DType kQuantized[] = {DType::i8, DType::u8, DType::i16, DType::u16, DType::i4, DType::u4, DType::f8e4m3, DType::f8e5m2};
const DType kFloats[] = {DType::f32, DType::f16, DType::bf16};

Tensor random_codes(DType type, Shape shape, unsigned seed) {
  const double wide = is_float(type) ? 2 : quantized_range(type).most / 3;
  return random_tensor(type, std::move(shape), seed, wide);
}

Tensor random_scales(DType type, Shape shape, double about) {
  Tensor t = random_tensor(type, std::move(shape), 7);
  for (std::int64_t i = 0; i < t.count(); ++i) store_element(type, t.mutable_data(), i, about * (0.5 + std::abs(t.at(i))));
  return t;
}

struct Row {
  Shape shape;
  std::int64_t axis, block;  // block -1: one scale
};

const Row kRows[] = {{{7}, 0, -1},         {{3000}, 0, -1},   {{2, 3, 5}, 1, 0},  {{4, 70}, 1, 0},   {{4, 70}, 0, 0},
                     {{64, 33}, 0, 32},    {{33, 64}, 1, 32}, {{5, 100}, -1, 32}, {{100, 6}, 0, 32}, {{3, 2100}, 1, 2048},
                     {{3, 1600}, 1, 1536}, {{2, 6, 4}, 1, 2}, {{2, 7, 1}, 1, 3},  {{9, 2}, 1, 1},    {{0, 4}, 1, 0},
                     {{4, 0}, 0, 0},       {{2, 4096}, 0, 1}, {{}, 0, -1}};

Shape scales_of(const Row& row) {
  if (row.block < 0) return {};
  const auto axis = static_cast<std::size_t>(row.axis < 0 ? row.axis + static_cast<std::int64_t>(row.shape.size()) : row.axis);
  if (row.block == 0) return {row.shape[axis]};
  Shape scales = row.shape;
  scales[axis] = (scales[axis] + row.block - 1) / row.block;
  return scales;
}

std::vector<std::pair<std::string, AttributeValue>> where(const Row& row) {
  return {{"axis", row.axis}, {"block_size", std::max<std::int64_t>(0, row.block)}};
}

TEST(Quantize, MatchesTheOp) {
  for (const Row& row : kRows)
    for (const DType to : kQuantized)
      for (const DType from : kFloats)
        for (const DType scale : {DType::f32, DType::f16})
          for (const bool zero : {false, true}) {
            if (zero && is_float(to)) continue;
            KernelCase c = {.kernel = "quantize_linear", .op = "QuantizeLinear", .attributes = where(row)};
            c.attributes.emplace_back("to", to);
            const double most = is_float(to) ? 1 : quantized_range(to).most;
            c.operands = {random_tensor(from, row.shape, 1, 2), random_scales(scale, scales_of(row), 3 / most)};
            if (zero) c.operands.emplace_back(random_codes(to, scales_of(row), 3));
            c.threads = zero ? 3 : 1;
            expect_kernel_matches_op(c, 0);
          }
}

TEST(Quantize, OddNumbers) {
  for (const DType to : kQuantized) {
    KernelCase c = {.kernel = "quantize_linear", .op = "QuantizeLinear", .attributes = {{"to", to}}};
    const std::vector<double> x = {0,        -0.0,      0.5, 1.5,  2.5, -0.5, -1.5,  1e-3,  1e-6, 3e38, -3e38,
                                   INFINITY, -INFINITY, NAN, 0.01, 448, 449,  57344, 60000, 17,   464,  500};
    c.operands = {Tensor::of(DType::f32, {static_cast<std::int64_t>(x.size())}, x), Tensor::of(DType::f32, {}, std::vector<double>{1})};
    expect_kernel_matches_op(c, 0);
  }
}

TEST(Dequantize, MatchesTheOp) {
  for (const Row& row : kRows)
    for (const DType from : kQuantized)
      for (const DType to : kFloats)
        for (const bool zero : {false, true}) {
          KernelCase c = {.kernel = "dequantize_linear", .op = "DequantizeLinear", .attributes = where(row)};
          c.attributes.emplace_back("to", to);
          c.operands = {random_codes(from, row.shape, 1), random_scales(zero ? DType::f32 : DType::bf16, scales_of(row), 0.1)};
          if (zero) c.operands.emplace_back(random_codes(from, scales_of(row), 3));
          c.threads = zero ? 3 : 1;
          expect_kernel_matches_op(c, tolerance_of(to));
        }
}

// Every code there is.
TEST(Dequantize, AllCodes) {
  for (const DType from : {DType::f8e4m3, DType::f8e5m2, DType::i8, DType::u8, DType::i4, DType::u4}) {
    Tensor x(from, {bits(from) == 4 ? 511 : 256});
    for (std::size_t i = 0; i < x.size_bytes(); ++i) x.mutable_data()[i] = static_cast<std::byte>(i);
    KernelCase c = {.kernel = "dequantize_linear", .op = "DequantizeLinear"};
    c.operands = {x, Tensor::of(DType::f32, {}, std::vector<double>{1})};
    expect_kernel_matches_op(c, 0);
  }
}

// Runs that begin and end anywhere, there and back.
TEST(Quantize, RunsInsideABuffer) {
  for (const DType type : kQuantized) {
    const Tensor x = random_codes(type, {151}, 5);
    for (const std::int64_t first : {0, 1, 2, 5})
      for (const std::int64_t count : {0, 1, 3, 16, 33, 64, 140}) {
        std::vector<float> floats(static_cast<std::size_t>(count) + 1, -1);
        quantized_to_floats(type, x.data(), first, floats.data(), count);
        EXPECT_EQ(floats.back(), -1);
        Tensor back(type, {151});
        floats_to_quantized(type, floats.data(), back.mutable_data(), first, count);
        for (std::int64_t i = 0; i < 151; ++i) {
          const bool inside = i >= first && i < first + count;
          ASSERT_EQ(back.at(i), inside ? x.at(i) : 0) << to_string(type) << " " << first << " " << count << " " << i;
          if (inside) {
            ASSERT_EQ(floats[static_cast<std::size_t>(i - first)], x.at(i));
          }
        }
      }
  }
}

}  // namespace
}  // namespace tandem::test
