// NonZero against a plain loop over nested indices that knows nothing of the evaluator or of any kernel.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>

#include "kernels/kernel_case.h"

namespace tandem::test {
namespace {

const DType kTypes[] = {DType::f32, DType::f16, DType::bf16, DType::f64, DType::f8e4m3, DType::f8e5m2,  DType::i8, DType::u8, DType::i16,
                        DType::u16, DType::i32, DType::u32,  DType::i64, DType::u64,    DType::boolean, DType::i4, DType::u4};

bool is_zero(const Tensor& x, std::int64_t i) { return is_float(x.dtype()) ? x.at(i) == 0 : x.int_at(i) == 0; }

// The indices one after the other, counted up like an odometer.
std::vector<Shape> expected_indices(const Tensor& x) {
  std::vector<Shape> found;
  Shape index(x.shape().size(), 0);
  for (std::int64_t i = 0; i < x.count(); ++i) {
    if (!is_zero(x, i)) found.push_back(index);
    for (std::size_t d = index.size(); d-- > 0;) {
      if (++index[d] < x.shape()[d]) break;
      index[d] = 0;
    }
  }
  return found;
}

void expect_nonzero(const Tensor& x, int threads = 2) {
  SCOPED_TRACE(testing::Message() << to_string(x.dtype()) << to_string(x.shape()));
  const std::vector<Tensor> results =
      run_kernel({.kernel = "nonzero", .op = "NonZero", .attributes = {{"symbol", std::string("n")}}, .operands = {x}, .threads = threads});
  const std::vector<Shape> expected = expected_indices(x);
  const auto rank = static_cast<std::int64_t>(x.shape().size()), count = static_cast<std::int64_t>(expected.size());
  ASSERT_EQ(results.at(1).shape(), Shape{});
  ASSERT_EQ(results[1].int_at(0), count);
  ASSERT_EQ(results[0].shape(), (Shape{rank, count}));
  for (std::int64_t d = 0; d < rank; ++d)
    for (std::int64_t n = 0; n < count; ++n)
      ASSERT_EQ(results[0].int_at(d * count + n), expected[static_cast<std::size_t>(n)][static_cast<std::size_t>(d)]) << d << " " << n;
}

// One of `in` elements is not zero.
Tensor sparse(DType dtype, const Shape& shape, unsigned in, unsigned seed) {
  std::mt19937 random(seed);
  std::vector<std::int64_t> values(static_cast<std::size_t>(element_count(shape)));
  for (std::int64_t& v : values) v = random() % in == 0 ? 1 : 0;
  return is_float(dtype) ? Tensor::of(dtype, shape, std::vector<double>(values.begin(), values.end()))
                         : Tensor::of_ints(dtype, shape, values);
}

TEST(NonZero, AllTypes) {
  for (const DType dtype : kTypes)
    for (const unsigned in : {2u, 7u}) expect_nonzero(sparse(dtype, {3, 5, 14}, in, in));
}

TEST(NonZero, Ranks) {
  for (const Shape& shape : {Shape{}, Shape{7}, Shape{1}, Shape{4, 3}, Shape{1, 9, 1}, Shape{2, 3, 4, 5}, Shape{2, 1, 3, 1, 4},
                             Shape{2, 2, 2, 2, 2, 2, 2, 3}, Shape{2, 2, 2, 2, 2, 2, 2, 2, 3}})
    for (const unsigned in : {1u, 3u}) expect_nonzero(sparse(DType::i32, shape, in, 1));
}

TEST(NonZero, NoneAllAndEmpty) {
  for (const DType dtype : {DType::f32, DType::boolean, DType::i64}) {
    for (const Shape& shape : {Shape{}, Shape{9000}, Shape{33, 65}, Shape{0}, Shape{3, 0, 2}}) {
      expect_nonzero(Tensor(dtype, shape));
      expect_nonzero(sparse(dtype, shape, 1, 0));
    }
  }
}

TEST(NonZero, TilesAndTheirEnds) {
  for (const std::int64_t extent : {31, 32, 33, 4095, 4096, 4097, 16384, 16385, 70000})
    for (const unsigned in : {1u, 5u, 1000u}) expect_nonzero(sparse(DType::u8, {extent}, in, in), 3);
  expect_nonzero(sparse(DType::f16, {1100, 4099}, 11, 5), 3);  // more tiles than are scanned at a time
}

TEST(NonZero, SignsAndNaN) {
  const double inf = std::numeric_limits<double>::infinity(), nan = std::nan("");
  for (const DType dtype : {DType::f32, DType::f16, DType::bf16, DType::f64, DType::f8e5m2})
    expect_nonzero(Tensor::of(dtype, {2, 4}, std::vector<double>{-0.0, 0.0, nan, -nan, inf, -inf, -1, 0.0625}));
  expect_nonzero(Tensor::of_ints(DType::i64, {4}, std::vector<std::int64_t>{0, INT64_MIN, INT64_MAX, -1}));
  expect_nonzero(Tensor::of_ints(DType::i8, {3}, std::vector<std::int64_t>{-128, 0, 127}));
}

TEST(NonZero, TheEvaluatorSaysTheSame) {
  for (const DType dtype : kTypes)
    expect_kernel_matches_op(
        {.kernel = "nonzero", .op = "NonZero", .attributes = {{"symbol", std::string("n")}}, .operands = {sparse(dtype, {2, 3, 10}, 3, 4)}},
        0);
}

}  // namespace
}  // namespace tandem::test
