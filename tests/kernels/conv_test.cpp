#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <set>

#include "kernels/kernel_case.h"
#include "ops/shape_rules.h"

namespace tandem::test {
namespace {

const DType kFloats[] = {DType::f32, DType::f16, DType::bf16};
using Ints = std::vector<std::int64_t>;

struct Row {
  Shape x, w;
  Ints strides = {}, dilations = {};
  std::vector<Dim> pads = {};
};

const Row kRows[] = {
    {{2, 3, 9, 11}, {5, 3, 3, 3}, {}, {}, {1, 1, 1, 1}},
    {{1, 16, 14, 14}, {32, 16, 3, 3}, {2, 2}, {}, {1, 1, 1, 1}},
    {{1, 64, 7, 7}, {64, 64, 1, 1}},
    {{3, 64, 8, 8}, {128, 64, 1, 1}, {2, 2}},
    {{1, 3, 32, 32}, {16, 3, 7, 7}, {2, 2}, {}, {3, 3, 3, 3}},
    {{2, 3, 16, 16}, {24, 3, 4, 4}, {4, 4}},
    {{2, 8, 10, 10}, {8, 1, 3, 3}, {}, {}, {1, 1, 1, 1}},                   // depthwise
    {{1, 32, 9, 9}, {64, 1, 3, 3}, {2, 2}, {}, {1, 1, 1, 1}},               // two channels of the result for each of x
    {{2, 12, 8, 6}, {20, 3, 3, 2}, {1, 2}, {}, {2, 0, 1, 1}},               // four groups, uneven padding
    {{1, 6, 13, 12}, {7, 6, 3, 3}, {2, 1}, {2, 3}, {2, 3, 2, 3}},           // dilated
    {{2, 4, 21}, {6, 4, 5}, {3}, {2}, {4, 1}},                              // one spatial dimension
    {{1, 3, 5, 6, 7}, {4, 3, 3, 2, 3}, {1, 2, 1}, {}, {1, 0, 1, 1, 1, 1}},  // three
    {{1, 2, 3, 3}, {2, 2, 5, 5}, {}, {}, {2, 2, 2, 2}},                     // larger than x
    {{1, 128, 5, 5}, {48, 128, 3, 3}, {}, {}, {1, 1, 1, 1}},
    {{0, 3, 8, 8}, {4, 3, 3, 3}},
    {{1, 3, 0, 4}, {4, 3, 1, 3}, {}, {}, {1, 0, 1, 0}},  // nothing but padding
    {{1, 0, 4, 4}, {2, 0, 3, 3}},                        // nothing to sum
    {{1, 3, 4, 4}, {0, 3, 3, 3}},
};

// Dimension d of the result is dimension order[d] of `from`.
Tensor permuted(const Tensor& from, const std::vector<std::size_t>& order) {
  Shape shape;
  for (const std::size_t d : order) shape.push_back(from.shape()[d]);
  const Shape steps = row_major_strides(from.shape());
  std::vector<double> values;
  for (std::int64_t i = 0; i < from.count(); ++i) {
    std::int64_t rest = i, at = 0;
    for (std::size_t d = order.size(); d-- > 0; rest /= shape[d]) at += rest % shape[d] * steps[order[d]];
    values.push_back(from.at(at));
  }
  return Tensor::of(from.dtype(), shape, values);
}

Tensor last_channels(const Tensor& first) {
  std::vector<std::size_t> order = {0};
  for (std::size_t d = 2; d < first.shape().size(); ++d) order.push_back(d);
  order.push_back(1);
  return permuted(first, order);
}

Tensor first_channels(const Tensor& last) {
  std::vector<std::size_t> order = {0, last.shape().size() - 1};
  for (std::size_t d = 1; d + 1 < last.shape().size(); ++d) order.push_back(d);
  return permuted(last, order);
}

KernelCase with_channels_last(const KernelCase& first) {
  KernelCase last = first;
  last.attributes.emplace_back("layout", std::string("channels_last"));
  for (const std::size_t i : {0u, 1u, 3u})
    if (i < last.operands.size() && last.operands[i]) last.operands[i] = last_channels(*last.operands[i]);
  return last;
}

// The same case with layout = "channels_last" gives what the evaluator gives for this one.
void expect_same_with_channels_last(const KernelCase& first, double tolerance) {
  const KernelCase last = with_channels_last(first);
  const Tensor wanted = evaluate(first)[0];
  expect_close(first_channels(evaluate(last)[0]), wanted, 0, "evaluator, channels last");
  expect_close(first_channels(run_kernel(last)[0]), wanted, tolerance, "kernel, channels last");
}

KernelCase conv(const Row& row, DType dtype) {
  KernelCase c = {
      .kernel = "onednn_conv", .op = "Conv", .attributes = {{"strides", row.strides}, {"dilations", row.dilations}, {"pads", row.pads}}};
  const double scale = 1 / std::sqrt(std::max<double>(1, static_cast<double>(element_count(row.w) / std::max<std::int64_t>(1, row.w[0]))));
  c.operands = {random_tensor(dtype, row.x, 1), random_tensor(dtype, row.w, 2, scale)};
  return c;
}

TEST(Conv, EveryWindow) {
  for (const Row& row : kRows)
    for (const DType dtype : kFloats)
      for (const bool weight : {false, true})
        for (const int threads : {1, 2, 3}) {
          KernelCase c = conv(row, dtype);
          if (weight) c.weights = {1};
          c.threads = threads;
          expect_kernel_matches_op(c, tolerance_of(dtype));
          expect_same_with_channels_last(c, tolerance_of(dtype));
        }
}

TEST(Conv, BiasResidualActivation) {
  for (const Row& row : {kRows[0], kRows[3], kRows[7], kRows[10], kRows[15]})
    for (const DType dtype : kFloats)
      for (const char* activation : {"none", "relu", "silu", "gelu", "gelu_tanh", "tanh", "sigmoid"})
        for (const int added : {0, 1, 2, 3}) {
          KernelCase c = conv(row, dtype);
          c.weights = {1};
          c.threads = 2;
          c.attributes.emplace_back("activation", std::string(activation));
          const Shape y = known_shape(call_of(c).results.at(0).dims).value();
          Shape bias(y.size() - 1, 1);
          bias[0] = y[1];
          c.operands.push_back(added & 1 ? std::optional(random_tensor(dtype, added == 1 ? Shape{y[1]} : bias, 3)) : std::nullopt);
          if (added & 2) c.operands.push_back(random_tensor(dtype, y, 4));
          expect_kernel_matches_op(c, 2 * tolerance_of(dtype));
          expect_same_with_channels_last(c, 2 * tolerance_of(dtype));
        }
}

// Each of them gives what the op says; one that the library does not know is as none. How many there were.
std::size_t expect_every_algorithm(KernelCase c, double tolerance) {
  if (refusal_of(c)) return 0;
  std::vector<std::string> algorithms = algorithms_of(c);
  const std::size_t count = algorithms.size();
  EXPECT_EQ(std::set<std::string>(algorithms.begin(), algorithms.end()).size(), count);
  if (count > 0) algorithms.insert(algorithms.end(), {"eng1234567_k2=1 of another version", "apart eng1234567"});
  for (const std::string& algorithm : algorithms) {
    SCOPED_TRACE(algorithm);
    c.algorithm = algorithm;
    expect_kernel_matches_op(c, tolerance);
  }
  return count;
}

// Numbers that are none in the images and in what is added to the sums; weights are finite. `below`: -infinity is among the sums.
KernelCase beside_no_numbers(DType dtype, const std::string& activation, bool below) {
  std::vector<double> values(16 * 6 * 6, 0.5), residual(16 * 6 * 6, -1);
  values[5 * 36 + 14] = NAN;
  values[7 * 36 + 30] = INFINITY;
  residual[40] = NAN, residual[41] = INFINITY;
  if (below) residual[42] = -INFINITY;
  Tensor weight = random_tensor(dtype, {16, 16, 3, 3}, 2, 0.1);
  std::vector<double> taps;
  for (std::int64_t i = 0; i < weight.count(); ++i) taps.push_back(i / 9 % 16 == 7 && !below ? std::fabs(weight.at(i)) : weight.at(i));
  KernelCase c = {
      .kernel = "onednn_conv", .op = "Conv", .attributes = {{"pads", std::vector<Dim>{1, 1, 1, 1}}, {"activation", activation}}};
  c.operands = {Tensor::of(dtype, {1, 16, 6, 6}, values), Tensor::of(dtype, {16, 16, 3, 3}, taps), random_tensor(dtype, {16}, 3),
                Tensor::of(dtype, {1, 16, 6, 6}, residual)};
  c.weights = {1};
  c.exact = below;  // cuDNN makes 0 of it
  return c;
}

// Whichever is the fastest is taken, so each must be right.
TEST(Conv, EveryAlgorithmOfTheLibrary) {
  std::size_t most = 0;
  for (const KernelDef* kernel : on_cuda() ? cuda_kernels() : cpu_kernels()) {
    if (kernel->op != "Conv") continue;
    for (const Row& row : {kRows[1], kRows[3], Row{{2, 8, 40, 40}, {64, 8, 7, 7}, {2, 2}, {}, {3, 3, 3, 3}}})
      for (const DType dtype : kFloats)
        for (const bool finished : {false, true}) {
          KernelCase c = conv(row, dtype);
          c.kernel = kernel->name;
          c.weights = {1};
          if (finished) {
            c.attributes.emplace_back("activation", std::string("relu"));
            const Shape y = known_shape(call_of(c).results.at(0).dims).value();
            c.operands.insert(c.operands.end(), {random_tensor(dtype, {y[1]}, 3), random_tensor(dtype, y, 4)});
          }
          const std::size_t first = expect_every_algorithm(c, 2 * tolerance_of(dtype));
          most = std::max({most, first, expect_every_algorithm(with_channels_last(c), 2 * tolerance_of(dtype))});
        }
    for (const DType dtype : kFloats)
      for (const char* activation : {"none", "relu"}) {
        KernelCase c = beside_no_numbers(dtype, activation, false);
        c.kernel = kernel->name;
        expect_every_algorithm(c, 2 * tolerance_of(dtype));
        expect_every_algorithm(with_channels_last(c), 2 * tolerance_of(dtype));
      }
  }
  if (most == 0) GTEST_SKIP() << "no kernel here has several algorithms";
  EXPECT_GT(most, 1u);
  EXPECT_LE(most, 6u);
}

// Written out, so that kernel and evaluator have an oracle that is neither.
TEST(Conv, PlainLoop) {
  const std::int64_t in = 4, out = 6, h = 7, w = 8, groups = 2;
  const Tensor x = random_tensor(DType::f32, {2, in, h, w}, 1), k = random_tensor(DType::f32, {out, in / groups, 3, 2}, 2),
               b = random_tensor(DType::f32, {out}, 3);
  std::vector<double> y;
  for (int n = 0; n < 2; ++n)
    for (int m = 0; m < out; ++m)
      for (int i = -1; i + 3 <= h + 2; i += 2)
        for (int j = 0; j + 4 <= w + 1; ++j) {
          double sum = b.at(m);
          for (int c = 0; c < in / groups; ++c)
            for (int u = 0; u < 3; ++u)
              for (int v = 0; v < 2; ++v) {
                const int row = i + u, column = j + 3 * v;
                if (row < 0 || row >= h || column >= w) continue;
                const std::int64_t channel = m / (out / groups) * (in / groups) + c;
                sum += x.at(((n * in + channel) * h + row) * w + column) * k.at(((m * in / groups + c) * 3 + u) * 2 + v);
              }
          y.push_back(sum);
        }
  KernelCase c = {.kernel = "onednn_conv",
                  .op = "Conv",
                  .attributes = {{"strides", Ints{2, 1}}, {"dilations", Ints{1, 3}}, {"pads", std::vector<Dim>{1, 0, 2, 1}}},
                  .operands = {x, k, b}};
  const Tensor expected = Tensor::of(DType::f32, {2, out, 4, 6}, y);
  expect_close(evaluate(c)[0], expected, 1e-6, "evaluator");
  expect_close(run_kernel(c)[0], expected, 1e-5, "kernel");
}

// What is no number stays in the windows that see it, infinities too, and padding is not multiplied.
TEST(Conv, NaNAndInfinities) {
  const double inf = std::numeric_limits<double>::infinity();
  for (const char* activation : {"none", "relu"})
    for (const DType dtype : kFloats) {
      std::vector<double> values(16 * 6 * 6, 0.5);
      values[5 * 36 + 14] = NAN;
      values[7 * 36 + 35] = inf;
      std::vector<double> taps(16 * 16 * 9, 0.25);
      for (std::size_t i = 0; i < 9; ++i) taps[i] = inf;
      KernelCase c = {.kernel = "onednn_conv",
                      .op = "Conv",
                      .attributes = {{"pads", std::vector<Dim>{1, 1, 1, 1}}, {"activation", std::string(activation)}}};
      c.operands = {Tensor::of(dtype, {1, 16, 6, 6}, values), Tensor::of(dtype, {16, 16, 3, 3}, taps)};
      c.weights = {1};
      c.exact = true;
      expect_kernel_matches_op(c, tolerance_of(dtype));
      expect_same_with_channels_last(c, tolerance_of(dtype));
    }
}

// The same of numbers that are none among finite weights, by kernels that finish the sums in their own way too.
TEST(Conv, NaNAndInfinitiesAreActivated) {
  for (const DType dtype : kFloats)
    for (const char* activation : {"none", "relu", "silu"})
      for (const bool below : {false, true}) {
        const KernelCase c = beside_no_numbers(dtype, activation, below);
        expect_kernel_matches_op(c, 2 * tolerance_of(dtype));
        expect_same_with_channels_last(c, 2 * tolerance_of(dtype));
      }
}

TEST(Conv, ImagesBeyondTheSlotsAndOddThreads) {
  KernelCase c = conv({{7, 16, 6, 6}, {32, 16, 3, 3}, {}, {}, {1, 1, 1, 1}}, DType::f32);
  c.weights = {1};
  for (const int threads : {2, 4, 5}) {
    c.threads = threads;
    expect_kernel_matches_op(c, 1e-5);
  }
}

struct Windows {
  Shape x;
  Ints kernel;
  Ints strides = {}, dilations = {};
  std::vector<Dim> pads = {};
};

const Windows kWindows[] = {
    {{2, 3, 9, 11}, {3, 3}, {2, 2}, {}, {1, 1, 1, 1}},
    {{1, 5, 8, 8}, {2, 2}, {2, 2}},
    {{2, 2, 7, 10}, {3, 2}, {2, 3}, {2, 1}, {2, 0, 1, 1}},
    {{1, 4, 33}, {5}, {3}, {}, {2, 2}},
    {{1, 2, 5, 6, 7}, {3, 2, 3}, {2, 2, 2}, {}, {1, 1, 1, 1, 0, 1}},
    {{3, 2, 6, 6}, {3, 3}, {4, 4}, {}, {0, 0, 1, 1}},
    {{1, 70, 40, 41}, {3, 3}},
    {{2, 16, 9, 8}, {3, 3}, {2, 2}, {}, {1, 1, 1, 1}},
    {{0, 3, 8, 8}, {2, 2}},
    {{2, 0, 8, 8}, {2, 2}},
};

TEST(Pool, EveryWindow) {
  for (const Windows& w : kWindows)
    for (const DType dtype : kFloats)
      for (const bool ceil : {false, true})
        for (const int threads : {1, 2}) {
          KernelCase c = {.kernel = "max_pool", .op = "MaxPool", .operands = {random_tensor(dtype, w.x, 1)}, .threads = threads};
          c.attributes = {{"kernel", w.kernel}, {"strides", w.strides}, {"dilations", w.dilations}, {"pads", w.pads}, {"ceil", ceil}};
          expect_kernel_matches_op(c, 0);
          expect_same_with_channels_last(c, 0);
          c.kernel = "average_pool";
          c.op = "AveragePool";
          for (const bool count : {false, true}) {
            c.attributes.emplace_back("count_padding", count);
            expect_kernel_matches_op(c, tolerance_of(dtype));
            expect_same_with_channels_last(c, tolerance_of(dtype));
            c.attributes.pop_back();
          }
        }
}

TEST(Pool, NaNAndInfinities) {
  for (const DType dtype : kFloats) {
    std::vector<double> values(2 * 25, -3);
    values[7] = NAN, values[20] = -INFINITY, values[30] = INFINITY, values[31] = -INFINITY;
    for (const char* op : {"MaxPool", "AveragePool"}) {
      const KernelCase c = {.kernel = op == std::string("MaxPool") ? "max_pool" : "average_pool",
                            .op = op,
                            .attributes = {{"kernel", Ints{2, 2}}, {"pads", std::vector<Dim>{1, 1, 1, 1}}},
                            .operands = {Tensor::of(dtype, {1, 2, 5, 5}, values)}};
      expect_kernel_matches_op(c, tolerance_of(dtype));
      expect_same_with_channels_last(c, tolerance_of(dtype));
    }
  }
}

TEST(GroupNorm, AllForms) {
  for (const DType dtype : kFloats)
    for (const Shape& shape :
         {Shape{2, 8, 5, 7}, Shape{1, 64, 16, 16}, Shape{3, 12, 33}, Shape{2, 6}, Shape{1, 4, 3, 5, 300}, Shape{0, 4, 3}, Shape{2, 4, 0}})
      for (const std::int64_t size : {1, 2})
        for (const bool in_place : {false, true}) {
          const Tensor scale = random_tensor(dtype, {shape[1]}, 2), bias = random_tensor(dtype, {shape[1]}, 3);
          KernelCase c = {.kernel = "group_norm", .op = "GroupNorm", .attributes = {{"group_size", size}, {"epsilon", 1e-3}}};
          c.operands = {random_tensor(dtype, shape, 1, 3), scale, bias};
          c.threads = 2;
          c.in_place = in_place;
          expect_kernel_matches_op(c, 4 * tolerance_of(dtype));
        }
}

TEST(GroupNorm, FarFromZeroAndNaN) {
  std::vector<double> values;
  for (int i = 0; i < 2 * 4 * 50; ++i) values.push_back(1000 + std::sin(i));
  KernelCase c = {.kernel = "group_norm", .op = "GroupNorm", .attributes = {{"group_size", std::int64_t{2}}}};
  c.operands = {Tensor::of(DType::f32, {2, 4, 50}, values), random_tensor(DType::f32, {4}, 2), random_tensor(DType::f32, {4}, 3)};
  expect_kernel_matches_op(c, 1e-3);  // 1000 has three digits more than what is left of it
  values[130] = NAN;
  c.operands[0] = Tensor::of(DType::f32, {2, 4, 50}, values);
  expect_kernel_matches_op(c, 1e-3);
}

TEST(Resize, EveryMode) {
  for (const DType dtype : kFloats)
    for (const char* mode : {"nearest", "linear", "cubic"})
      for (const char* coordinates : {"half_pixel", "half_pixel_symmetric", "pytorch_half_pixel", "align_corners", "asymmetric"})
        for (const std::vector<Dim>& sizes :
             {std::vector<Dim>{14, 10}, std::vector<Dim>{3, 9}, std::vector<Dim>{13}, std::vector<Dim>{1, 1}, std::vector<Dim>{0, 4}})
          for (const bool exclude : {false, true}) {
            KernelCase c = {.kernel = "resize", .op = "Resize", .operands = {random_tensor(dtype, {2, 3, 7, 5}, 1)}, .threads = 2};
            c.attributes = {
                {"sizes", sizes}, {"mode", std::string(mode)}, {"coordinates", std::string(coordinates)}, {"exclude_outside", exclude}};
            expect_kernel_matches_op(c, 2 * tolerance_of(dtype));
          }
}

TEST(Resize, NearestRowsAndThreeDimensions) {
  for (const char* nearest : {"round_prefer_floor", "round_prefer_ceil", "floor", "ceil"}) {
    KernelCase c = {.kernel = "resize", .op = "Resize", .operands = {random_tensor(DType::f32, {2, 4, 5, 6}, 1)}};
    c.attributes = {{"sizes", std::vector<Dim>{6, 15, 4}}, {"nearest", std::string(nearest)}};
    c.attributes.emplace_back("scales", Tensor::of(DType::f32, {3}, std::vector<double>{1.6, 3, 0.7}));
    expect_kernel_matches_op(c, 0);
  }
}

}  // namespace
}  // namespace tandem::test
