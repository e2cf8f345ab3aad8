#include <gtest/gtest.h>

#include <cmath>

#include "kernels/kernel_case.h"

namespace tandem::test {
namespace {

const DType kFloats[] = {DType::f32, DType::f16, DType::bf16};

TEST(Norm, LayerNormPlainLoop) {
  const std::int64_t rows = 5, n = 385;
  const Tensor x = random_tensor(DType::f32, {rows, n}, 1, 3), scale = random_tensor(DType::f32, {n}, 2),
               bias = random_tensor(DType::f32, {n}, 3);
  std::vector<double> y;
  for (std::int64_t r = 0; r < rows; ++r) {
    double mean = 0, variance = 0;
    for (std::int64_t i = 0; i < n; ++i) mean += x.at(r * n + i) / n;
    for (std::int64_t i = 0; i < n; ++i) variance += std::pow(x.at(r * n + i) - mean, 2) / n;
    for (std::int64_t i = 0; i < n; ++i) y.push_back((x.at(r * n + i) - mean) / std::sqrt(variance + 1e-12) * scale.at(i) + bias.at(i));
  }
  const KernelCase c = {.kernel = "layer_norm", .op = "LayerNorm", .attributes = {{"epsilon", 1e-12}}, .operands = {x, scale, bias}};
  expect_close(run_kernel(c)[0], Tensor::of(DType::f32, {rows, n}, y), 1e-5, "layer_norm");
}

TEST(Norm, AllForms) {
  for (const DType dtype : kFloats)
    for (const std::int64_t n : {1, 7, 16, 31, 384, 1000})
      for (const std::int64_t rows : {0, 1, 9, 100})
        for (const bool in_place : {false, true})
          for (const int threads : {1, 2}) {
            const Tensor x = random_tensor(dtype, {rows, n}, 1), r = random_tensor(dtype, {rows, n}, 2), s = random_tensor(dtype, {n}, 3),
                         b = random_tensor(dtype, {n}, 4);
            const double tolerance = n == 1 ? 1e-2 : 2 * tolerance_of(dtype);
            const auto expect = [&](const char* kernel, const char* op, std::vector<std::optional<Tensor>> operands) {
              KernelCase c = {.kernel = kernel, .op = op, .operands = std::move(operands), .threads = threads, .in_place = in_place};
              expect_kernel_matches_op(c, tolerance);
            };
            expect("layer_norm", "LayerNorm", {x, s, b});
            expect("layer_norm", "LayerNorm", {x, s});
            expect("rms_norm", "RmsNorm", {x, s});
            expect("add_layer_norm", "AddLayerNorm", {x, r, s, b});
            expect("add_layer_norm", "AddLayerNorm", {x, r, s, b, s});
            expect("add_layer_norm", "AddLayerNorm", {x, r, s, std::nullopt, b});
            expect("add_rms_norm", "AddRmsNorm", {x, r, s});
            expect("add_rms_norm", "AddRmsNorm", {x, r, s, b});
          }
}

// Rows that take several vectors of several warps, odd ones, ones too long for registers, and many short ones.
TEST(Norm, LongAndManyRows) {
  struct Rows {
    std::int64_t rows, n;
  };
  for (const DType dtype : kFloats)
    for (const Rows& r :
         {Rows{3, 4096}, Rows{600, 640}, Rows{2, 4100}, Rows{2, 8191}, Rows{1, 9001}, Rows{2, 33000}, Rows{1, 66000}, Rows{1000, 24}}) {
      const Tensor x = random_tensor(dtype, {r.rows, r.n}, 1), residual = random_tensor(dtype, {r.rows, r.n}, 2);
      const Tensor s = random_tensor(dtype, {r.n}, 3), b = random_tensor(dtype, {r.n}, 4);
      expect_kernel_matches_op({.kernel = "layer_norm", .op = "LayerNorm", .operands = {x, s, b}}, 2 * tolerance_of(dtype));
      expect_kernel_matches_op({.kernel = "rms_norm", .op = "RmsNorm", .operands = {x, s}}, 2 * tolerance_of(dtype));
      expect_kernel_matches_op({.kernel = "add_layer_norm", .op = "AddLayerNorm", .operands = {x, residual, s, b, b}},
                               2 * tolerance_of(dtype));
      expect_kernel_matches_op({.kernel = "add_rms_norm", .op = "AddRmsNorm", .operands = {x, residual, s}}, 2 * tolerance_of(dtype));
    }
}

TEST(Norm, SeveralDimensions) {
  const Tensor x = random_tensor(DType::bf16, {3, 5, 24}, 1), s = random_tensor(DType::bf16, {5, 24}, 3);
  expect_kernel_matches_op({.kernel = "layer_norm", .op = "LayerNorm", .attributes = {{"axis", std::int64_t{1}}}, .operands = {x, s}},
                           2 * tolerance_of(DType::bf16));
}

TEST(Softmax, AgainstTheOp) {
  for (const DType dtype : kFloats)
    for (const std::int64_t n : {1, 5, 16, 33, 257})
      for (const char* op : {"Softmax", "LogSoftmax"})
        for (const bool in_place : {false, true}) {
          KernelCase c = {.kernel = op == std::string("Softmax") ? "softmax" : "log_softmax",
                          .op = op,
                          .operands = {random_tensor(dtype, {3, 2, n}, 1, 4)}};
          c.threads = 2;
          c.in_place = in_place;
          expect_kernel_matches_op(c, tolerance_of(dtype));
        }
}

TEST(Softmax, LongAndManyRows) {
  for (const DType dtype : kFloats)
    for (const Shape& shape :
         {Shape{3, 4096}, Shape{1000, 24}, Shape{600, 1040}, Shape{2, 8191}, Shape{2, 9001}, Shape{1, 33000}, Shape{0, 8}, Shape{3, 0}}) {
      expect_kernel_matches_op({.kernel = "softmax", .op = "Softmax", .operands = {random_tensor(dtype, shape, 1, 4)}},
                               tolerance_of(dtype));
      expect_kernel_matches_op({.kernel = "log_softmax", .op = "LogSoftmax", .operands = {random_tensor(dtype, shape, 1, 4)}},
                               tolerance_of(dtype));
    }
}

// On the CPU the evaluator runs these itself; they are for kernels of GPUs.
TEST(Softmax, OtherAxes) {
  for (const DType dtype : kFloats)
    for (const char* op : {"Softmax", "LogSoftmax"})
      for (const std::int64_t axis : {0, 1, 2}) {
        const KernelCase c = {
            .kernel = "plain", .op = op, .attributes = {{"axis", axis}}, .operands = {random_tensor(dtype, {5, 37, 70}, 1, 4)}};
        expect_kernel_matches_op(c, tolerance_of(dtype));
      }
}

TEST(Softmax, MaskedRowsAndNaN) {
  const double inf = INFINITY;
  const Tensor x = Tensor::of(DType::f32, {4, 3}, std::vector<double>{1, -inf, 2, -inf, -inf, -inf, NAN, 1, 2, 1e30, -1e30, 0});
  expect_kernel_matches_op({.kernel = "softmax", .op = "Softmax", .operands = {x}}, 1e-6);
  const KernelCase other_axis = {.kernel = "softmax", .op = "Softmax", .attributes = {{"axis", std::int64_t{0}}}, .operands = {x}};
  EXPECT_TRUE(refusal(*find_kernel("softmax"), call_of(other_axis)));
}

}  // namespace
}  // namespace tandem::test
