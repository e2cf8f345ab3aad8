#include <gtest/gtest.h>

#include <cmath>

#include "kernels/kernel_case.h"
#include "tandem/error.h"

namespace tandem::test {
namespace {

const DType kFloats[] = {DType::f32, DType::f16, DType::bf16};

struct View {
  Shape shape;
  std::vector<std::int64_t> axes;
};

const View kViews[] = {{{5, 7}, {1}},         {{3, 200}, {-1}},      {{4, 9, 384}, {1}}, {{2, 3, 5}, {0, 1, 2}}, {{6, 33}, {0}},
                       {{2, 3, 4, 17}, {1, 2}}, {{1, 1, 70}, {0, 1}}, {{3, 0, 4}, {1}},   {{0, 4}, {1}},          {{16}, {0}}};

TEST(Reduce, KindsAndViews) {
  for (const char* kind : {"sum", "mean", "max", "min", "prod", "l1", "l2", "sum_square"})
    for (const View& v : kViews)
      for (const DType dtype : kFloats)
        for (const bool keepdims : {false, true}) {
          if (element_count(v.shape) == 0 && std::string(kind) == "mean") continue;  // NaN either way, of no use
          KernelCase c = {.kernel = "reduce", .op = "Reduce", .threads = 2};
          c.attributes = {{"kind", std::string(kind)}, {"axes", v.axes}, {"keepdims", keepdims}};
          c.operands = {random_tensor(dtype, v.shape, 3)};
          expect_kernel_matches_op(c, tolerance_of(dtype));
        }
}

TEST(Reduce, PlainLoop) {
  const Tensor x = random_tensor(DType::f32, {3, 50, 20}, 8);
  std::vector<double> sums(60), tops(60, -INFINITY);
  for (std::int64_t i = 0; i < 3; ++i)
    for (std::int64_t j = 0; j < 50; ++j)
      for (std::int64_t l = 0; l < 20; ++l) {
        const auto at = static_cast<std::size_t>(i * 20 + l);
        sums[at] += x.at((i * 50 + j) * 20 + l);
        tops[at] = std::max(tops[at], x.at((i * 50 + j) * 20 + l));
      }
  KernelCase c = {.kernel = "reduce", .op = "Reduce", .attributes = {{"axes", std::vector<std::int64_t>{1}}, {"keepdims", false}}, .operands = {x}};
  expect_close(run_kernel(c)[0], Tensor::of(DType::f32, {3, 20}, sums), 1e-5, "sum");
  c.attributes.emplace_back("kind", std::string("max"));
  expect_close(run_kernel(c)[0], Tensor::of(DType::f32, {3, 20}, tops), 0, "max");
}

TEST(Reduce, NaNStaysInMaxAndMin) {
  for (const char* kind : {"max", "min"})
    for (const std::int64_t at : {0, 17, 99}) {
      Tensor x = random_tensor(DType::f32, {1, 100}, 5);
      x.mutable_as<float>()[at] = NAN;
      KernelCase c = {.kernel = "reduce", .op = "Reduce", .attributes = {{"kind", std::string(kind)}, {"axes", std::vector<std::int64_t>{1}}}, .operands = {x}};
      EXPECT_TRUE(std::isnan(run_kernel(c)[0].at(0))) << kind << " at " << at;
      c.attributes[1].second = std::vector<std::int64_t>{0};
      expect_kernel_matches_op(c, 0);
    }
}

TEST(Reduce, RefusesWhatItCannot) {
  KernelCase c = {.kernel = "reduce", .op = "Reduce", .attributes = {{"axes", std::vector<std::int64_t>{0, 2}}}, .operands = {Tensor(DType::f32, {2, 3, 4})}};
  EXPECT_TRUE(refusal_of(c));
  c.attributes[0].second = std::vector<std::int64_t>{0};
  c.attributes.emplace_back("kind", std::string("log_sum_exp"));
  EXPECT_TRUE(refusal_of(c));
}

TEST(Iota, Dtypes) {
  for (const DType dtype : {DType::i64, DType::i32, DType::f32}) {
    KernelCase c = {.kernel = "iota", .op = "Iota", .attributes = {{"offset", Dim(5)}, {"extent", Dim(3)}, {"dtype", dtype}}};
    expect_close(run_kernel(c)[0], Tensor::of(dtype, {3}, std::vector<double>{5, 6, 7}), 0, "iota");
  }
}

TEST(GatherND, MatchesTheOp) {
  const Tensor data = random_tensor(DType::f32, {2, 3, 4, 5}, 6);
  const auto expect = [&](const Tensor& from, Shape shape, std::vector<std::int64_t> indices, std::int64_t batch) {
    KernelCase c = {.kernel = "gather_nd", .op = "GatherND", .attributes = {{"batch_dims", batch}}, .threads = 2};
    c.operands = {from, Tensor::of_ints(DType::i64, std::move(shape), indices)};
    expect_kernel_matches_op(c, 0);
  };
  expect(data, {3, 2}, {0, 2, 1, -1, 1, 0}, 0);
  expect(data, {2, 2, 1}, {0, 2, -3, 1}, 1);
  expect(data, {2, 4}, {0, 0, 0, 0, 1, 2, 3, 4}, 0);
  expect(Tensor::of_ints(DType::boolean, {4}, std::vector<std::int64_t>{1, 0, 0, 1}), {2, 3, 1}, {0, 1, 2, 3, 2, 1}, 0);
}

TEST(GatherND, RefusesAnIndexOutside) {
  KernelCase c = {.kernel = "gather_nd", .op = "GatherND"};
  c.operands = {Tensor(DType::f32, {2, 3}), Tensor::of_ints(DType::i64, {1, 2}, std::vector<std::int64_t>{1, 3})};
  EXPECT_THROW(run_kernel(c), Error);
}

}  // namespace
}  // namespace tandem::test
