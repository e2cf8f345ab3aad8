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

const View kViews[] = {{{5, 7}, {1}},           {{3, 200}, {-1}},     {{4, 9, 384}, {1}}, {{2, 3, 5}, {0, 1, 2}}, {{6, 33}, {0}},
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
  KernelCase c = {
      .kernel = "reduce", .op = "Reduce", .attributes = {{"axes", std::vector<std::int64_t>{1}}, {"keepdims", false}}, .operands = {x}};
  expect_close(run_kernel(c)[0], Tensor::of(DType::f32, {3, 20}, sums), 1e-5, "sum");
  c.attributes.emplace_back("kind", std::string("max"));
  expect_close(run_kernel(c)[0], Tensor::of(DType::f32, {3, 20}, tops), 0, "max");
}

TEST(Reduce, NaNStaysInMaxAndMin) {
  for (const char* kind : {"max", "min"})
    for (const std::int64_t at : {0, 17, 99}) {
      Tensor x = random_tensor(DType::f32, {1, 100}, 5);
      x.mutable_as<float>()[at] = NAN;
      KernelCase c = {.kernel = "reduce",
                      .op = "Reduce",
                      .attributes = {{"kind", std::string(kind)}, {"axes", std::vector<std::int64_t>{1}}},
                      .operands = {x}};
      EXPECT_TRUE(std::isnan(run_kernel(c)[0].at(0))) << kind << " at " << at;
      c.attributes[1].second = std::vector<std::int64_t>{0};
      expect_kernel_matches_op(c, 0);
    }
}

TEST(Reduce, RefusesWhatItCannot) {
  KernelCase c = {.kernel = "reduce",
                  .op = "Reduce",
                  .attributes = {{"axes", std::vector<std::int64_t>{0, 2}}},
                  .operands = {Tensor(DType::f32, {2, 3, 4})}};
  EXPECT_TRUE(refusal_of(c));
  c.attributes[0].second = std::vector<std::int64_t>{0};
  c.attributes.emplace_back("kind", std::string("log_sum_exp"));
  EXPECT_TRUE(refusal_of(c));
}

// Rows and columns that several threads, warps or blocks of a GPU share.
TEST(Reduce, ShortAndLong) {
  for (const char* kind : {"sum", "max", "l2"})
    for (const DType dtype : kFloats)
      for (const std::int64_t extent : {1, 2, 3, 8, 31, 64, 100, 257, 1024, 5000, 70000})
        for (const std::int64_t others : {1, 3, 40}) {
          if (extent * others > 400000) continue;
          for (const bool rows : {true, false}) {
            KernelCase c = {.kernel = "reduce", .op = "Reduce", .threads = 2};
            c.attributes = {{"kind", std::string(kind)}, {"axes", std::vector<std::int64_t>{rows ? 1 : 0}}, {"keepdims", false}};
            c.operands = {random_tensor(dtype, rows ? Shape{others, extent} : Shape{extent, others}, 3)};
            expect_kernel_matches_op(c, tolerance_of(dtype));
          }
        }
}

// What the kernel of the CPU refuses: rows for a GPU's.
TEST(Reduce, AnyKindAxesAndDtype) {
  const View views[] = {{{4, 9, 16}, {0, 2}},
                        {{3, 5, 7}, {0, 2}},
                        {{2, 3, 4, 40}, {0, 2}},
                        {{2, 16, 3, 8}, {1, 3}},
                        {{40, 1, 30}, {1}},
                        {{2, 5000, 2, 3}, {1, 3}},
                        {{5}, {}},
                        {{0, 3}, {1}}};
  for (const std::string kind : {"sum", "mean", "max", "min", "prod", "l1", "sum_square", "l2", "log_sum", "log_sum_exp"})
    for (const View& v : views)
      for (const DType dtype : {DType::f32, DType::bf16, DType::f64, DType::i32, DType::u8, DType::i64}) {
        if (kind == "prod" && element_count(v.shape) > 10000) continue;
        Tensor x = random_tensor(dtype, v.shape, 3, is_float(dtype) ? 1 : 20);
        if (kind == "log_sum" || kind == "prod")  // that have a logarithm, and products of a few
          for (std::int64_t i = 0; i < x.count(); ++i) store_element(dtype, x.mutable_data(), i, 1 + std::fabs(x.at(i)) / 4);
        KernelCase c = {
            .kernel = "plain", .op = "Reduce", .attributes = {{"kind", kind}, {"axes", v.axes}, {"keepdims", false}}, .operands = {x}};
        expect_kernel_matches_op(c, is_float(dtype) ? tolerance_of(dtype) : 0);
      }
}

TEST(Reduce, LogSumExpOfInfinities) {
  const double inf = INFINITY;
  const std::vector<double> rows[] = {{-inf, -inf, -inf, -inf}, {inf, 1, -inf, inf},    {NAN, 1, 2, 3},      {1, inf, NAN, 0},
                                      {-inf, 2, -inf, 3},       {1000, 1000, -1000, 0}, {NAN, NAN, NAN, NAN}};
  std::vector<double> values;
  for (int repeat = 0; repeat < 40; ++repeat)  // so that several threads meet
    for (const auto& row : rows) values.insert(values.end(), row.begin(), row.end());
  for (const Shape& shape : {Shape{280, 4}, {4, 280}, {140, 8}, {1, 1120}})
    for (const std::int64_t axis : {0, 1}) {
      KernelCase c = {.kernel = "plain",
                      .op = "Reduce",
                      .attributes = {{"kind", std::string("log_sum_exp")}, {"axes", std::vector<std::int64_t>{axis}}}};
      c.operands = {Tensor::of(DType::f32, shape, values)};
      expect_kernel_matches_op(c, 1e-5);
    }
}

TEST(ArgReduce, FirstLastAndNaN) {
  for (const char* op : {"ArgMax", "ArgMin"})
    for (const bool last : {false, true})
      for (const DType dtype : {DType::f32, DType::f16, DType::bf16, DType::f64, DType::i8, DType::i64})
        for (const Shape& shape : {Shape{7, 5}, {3, 64, 9}, {2, 1000}, {1, 80000}, {40, 3, 16}, {9000, 8}, {1}})
          for (std::int64_t axis = 0; axis < static_cast<std::int64_t>(shape.size()); ++axis)
            for (const bool nan : {false, true}) {
              if (nan && (!is_float(dtype) || element_count(shape) < 20)) continue;
              Tensor x = random_tensor(dtype, shape, 4, 2);
              for (std::int64_t i = 0; i < x.count(); ++i)
                store_element(dtype, x.mutable_data(), i, std::round(x.at(i)));  // many are equal
              if (nan)
                for (const std::int64_t i : {x.count() / 2, x.count() / 2 + 3, x.count() - 1})
                  store_element(dtype, x.mutable_data(), i, NAN);
              KernelCase c = {
                  .kernel = "plain", .op = op, .attributes = {{"axis", axis}, {"last", last}, {"keepdims", false}}, .operands = {x}};
              expect_kernel_matches_op(c, 0);
            }
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
