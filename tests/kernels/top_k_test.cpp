// TopK against a plain double loop that knows nothing of the evaluator or of any kernel.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>

#include "kernels/kernel_case.h"
#include "tandem/error.h"

namespace tandem::test {
namespace {

const DType kFloats[] = {DType::f32, DType::f16, DType::bf16, DType::f64};
const DType kIntegers[] = {DType::i8, DType::u8, DType::i16, DType::u16, DType::i32, DType::u32, DType::i64, DType::u64};

KernelCase case_of(const char* kernel, const Tensor& x, std::int64_t axis, std::int64_t k, bool largest) {
  return {
      .kernel = kernel, .op = "TopK", .attributes = {{"axis", axis}, {"k", Dim(k)}, {"largest", largest}}, .operands = {x}, .threads = 2};
}

// a before b in the result, of elements that are not equal; long double holds every element of every dtype.
bool comes_before(long double a, long double b, bool largest) {
  if (std::isnan(a) || std::isnan(b)) return largest ? std::isnan(a) && !std::isnan(b) : !std::isnan(a) && std::isnan(b);
  return largest ? a > b : a < b;
}

long double element(const Tensor& x, std::int64_t i) {
  if (is_float(x.dtype())) return x.at(i);
  return x.dtype() == DType::u64 ? static_cast<long double>(x.as<std::uint64_t>()[i]) : static_cast<long double>(x.int_at(i));
}

// x as lines along the axis, and the place of every element in the order of the result: how many others come before it.
struct Lines {
  std::int64_t outer, extent, inner;
  std::vector<std::int64_t> places;  // by element of x

  Lines(const Tensor& x, std::size_t axis, bool largest)
      : outer(1), extent(x.shape()[axis]), inner(1), places(static_cast<std::size_t>(x.count())) {
    for (std::size_t d = 0; d < x.shape().size(); ++d) (d < axis ? outer : inner) *= d == axis ? 1 : x.shape()[d];
    std::vector<long double> line(static_cast<std::size_t>(extent));
    for (std::int64_t l = 0; l < outer * inner; ++l) {
      const auto at = [&](std::size_t j) { return l / inner * extent * inner + static_cast<std::int64_t>(j) * inner + l % inner; };
      for (std::size_t j = 0; j < line.size(); ++j) line[j] = element(x, at(j));
      for (std::size_t j = 0; j < line.size(); ++j)
        for (std::size_t other = 0; other < line.size(); ++other)
          places[static_cast<std::size_t>(at(j))] +=
              comes_before(line[other], line[j], largest) || (other < j && !comes_before(line[j], line[other], largest)) ? 1 : 0;
    }
  }
};

void expect_top_k(const char* kernel, const Tensor& x, std::int64_t axis, std::int64_t k, bool largest, const Lines& lines) {
  SCOPED_TRACE(testing::Message() << kernel << " " << to_string(x.dtype()) << to_string(x.shape()) << " axis " << axis << " k " << k
                                  << (largest ? " largest" : " smallest"));
  const std::vector<Tensor> results = run_kernel(case_of(kernel, x, axis, k, largest));
  Shape shape = x.shape();
  shape[static_cast<std::size_t>(axis)] = k;
  ASSERT_EQ(results[0].shape(), shape);
  ASSERT_EQ(results[1].shape(), shape);
  const auto size = static_cast<std::int64_t>(x.size_bytes()) / std::max<std::int64_t>(x.count(), 1);
  std::int64_t found = 0;
  for (std::int64_t i = 0; i < x.count(); ++i) {
    const std::int64_t place = lines.places[static_cast<std::size_t>(i)];
    if (place >= k) continue;
    ++found;
    const std::int64_t outer = i / (lines.extent * lines.inner), to = (outer * k + place) * lines.inner + i % lines.inner;
    ASSERT_EQ(results[1].as<std::int64_t>()[to], i / lines.inner % lines.extent) << "result " << to;
    ASSERT_EQ(std::memcmp(results[0].data() + to * size, x.data() + i * size, static_cast<std::size_t>(size)), 0) << "the bits of " << to;
  }
  EXPECT_EQ(found, results[1].count());
}

// On a GPU both would be one kernel.
void expect_by_all(const Tensor& x, std::int64_t axis, const std::vector<std::int64_t>& all_k) {
  for (const bool largest : {true, false}) {
    const Lines lines(x, static_cast<std::size_t>(axis), largest);
    for (const std::int64_t k : all_k)
      for (const char* kernel : {"top_k", "plain"})
        if (!on_cuda() || kernel == std::string("top_k")) expect_top_k(kernel, x, axis, k, largest, lines);
  }
}

// Many are equal.
Tensor rounded(DType dtype, const Shape& shape) {
  Tensor x = random_tensor(dtype, shape, 4, 3);
  for (std::int64_t i = 0; i < x.count(); ++i)
    if (is_float(dtype)) store_element(dtype, x.mutable_data(), i, std::round(x.at(i)));
  return x;
}

// Every bit of an integer is used, the highest ones too.
Tensor any_bits(DType dtype, const Shape& shape) {
  Tensor x(dtype, shape);
  std::uint64_t state = 7;
  for (std::int64_t i = 0; i < x.count(); ++i) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    store_int(dtype, x.mutable_data(), i, static_cast<std::int64_t>(state ^ state >> 29));
  }
  return x;
}

const Shape kShapes[] = {{7}, {1}, {3, 40}, {5, 1}, {3, 7, 4}, {2, 600}, {65, 3}, {1, 9, 1, 6}};

TEST(TopK, FloatsAlongAnyAxis) {
  for (const DType dtype : kFloats)
    for (const Shape& shape : kShapes)
      for (std::int64_t axis = 0; axis < static_cast<std::int64_t>(shape.size()); ++axis) {
        const std::int64_t extent = shape[static_cast<std::size_t>(axis)];
        expect_by_all(random_tensor(dtype, shape, 2), axis, {0, 1, extent / 2, extent});
        expect_by_all(rounded(dtype, shape), axis, {1, extent / 2, extent});
      }
}

TEST(TopK, IntegersAlongAnyAxis) {
  for (const DType dtype : kIntegers)
    for (const Shape& shape : kShapes)
      for (std::int64_t axis = 0; axis < static_cast<std::int64_t>(shape.size()); ++axis) {
        const std::int64_t extent = shape[static_cast<std::size_t>(axis)];
        expect_by_all(any_bits(dtype, shape), axis, {1, extent / 2, extent});
        expect_by_all(rounded(dtype, shape), axis, {1, extent / 2, extent});
      }
}

TEST(TopK, NaNInfinitiesAndZeros) {
  const double inf = INFINITY;
  const std::vector<double> values = {1, NAN, -inf, 0.0, -0.0, inf, NAN, -1, 0.0, -inf, inf, -NAN, 2, -0.0};
  for (const DType dtype : kFloats)
    for (const Shape& shape : {Shape{14}, Shape{2, 7}, Shape{7, 2}})
      for (std::int64_t axis = 0; axis < static_cast<std::int64_t>(shape.size()); ++axis)
        expect_by_all(Tensor::of(dtype, shape, values), axis, {0, 1, 2, shape[static_cast<std::size_t>(axis)]});
}

TEST(TopK, LimitsOfIntegers) {
  using Limits = std::numeric_limits<std::int64_t>;
  const std::vector<std::int64_t> values = {0, Limits::max(), -1, Limits::min(), 1, Limits::max() - 1, Limits::min() + 1};
  for (const DType dtype : kIntegers) expect_by_all(Tensor::of_ints(dtype, {7}, values), 0, {1, 3, 7});
}

// Lines that a GPU does not sort whole, results that it sorts in shared memory and in the workspace.
TEST(TopK, LongLines) {
  for (const DType dtype : {DType::f32, DType::bf16, DType::f64, DType::i8, DType::u64})
    for (const Shape& shape : {Shape{2, 2049}, Shape{3001, 2}, Shape{1, 4500}}) {
      const std::int64_t axis = shape[0] > shape[1] ? 0 : 1;
      expect_by_all(is_float(dtype) ? random_tensor(dtype, shape, 3) : any_bits(dtype, shape), axis, {1, 50, 1024, 2048, 2049});
      expect_by_all(rounded(dtype, shape), axis, {1, 50, 1024, 2048, 2049});
    }
}

TEST(TopK, AllEqual) {
  for (const DType dtype : {DType::f16, DType::f32, DType::i64})
    for (const std::int64_t extent : {30, 3000})
      expect_by_all(Tensor::of(dtype, {2, extent}, std::vector<double>(static_cast<std::size_t>(2 * extent), 1.5)), 1, {1, 29});
}

// As many lines as go round several times where each block has a part of the workspace.
TEST(TopK, ManyLines) {
  const Tensor many = random_tensor(DType::bf16, {600, 2100}, 3), few = random_tensor(DType::f32, {5000, 8}, 3);
  expect_kernel_matches_op(case_of("top_k", many, 1, 2060, true), 0);
  expect_kernel_matches_op(case_of("top_k", many, 1, 8, false), 0);
  expect_kernel_matches_op(case_of("top_k", few, 1, 2, true), 0);
  expect_kernel_matches_op(case_of("top_k", few.reshaped({8, 5000}), 0, 2, true), 0);
}

TEST(TopK, Empty) {
  for (const Shape& shape : {Shape{0, 4}, Shape{4, 0}, Shape{3, 0, 2}}) {
    const std::int64_t axis = shape[1] == 0 ? 0 : 1;
    expect_by_all(Tensor(DType::f32, shape), axis, {0, 2});
    expect_by_all(Tensor(DType::f32, shape), 1 - axis, {0});
  }
}

TEST(TopK, RefusesMoreThanThereAre) {
  for (const std::int64_t k : {-1, 4}) {
    KernelCase c = case_of("top_k", Tensor(DType::f32, {2, 3}), 1, k, true);
    EXPECT_THROW(run_kernel(c), Error) << k;
  }
}

}  // namespace
}  // namespace tandem::test
