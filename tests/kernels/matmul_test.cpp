#include <gtest/gtest.h>

#include <cmath>

#include "kernels/kernel_case.h"

namespace tandem::test {
namespace {

const DType kFloats[] = {DType::f32, DType::f16, DType::bf16};

std::vector<std::string> matmul_kernels() {
  std::vector<std::string> names;
  for (const KernelDef* kernel : on_cuda() ? cuda_kernels() : cpu_kernels())
    if (kernel->op == "MatMul") names.emplace_back(kernel->name);
  return names;
}

// y = a·b + bias by a loop of its own, so that not only the op's evaluator vouches for the kernels.
TEST(MatMul, PlainLoop) {
  const std::int64_t m = 37, k = 29, n = 83;
  const Tensor a = random_tensor(DType::f32, {m, k}, 1), b = random_tensor(DType::f32, {k, n}, 2), bias = random_tensor(DType::f32, {n}, 3);
  std::vector<double> y;
  for (std::int64_t i = 0; i < m; ++i)
    for (std::int64_t j = 0; j < n; ++j) {
      double sum = bias.at(j);
      for (std::int64_t l = 0; l < k; ++l) sum += a.at(i * k + l) * b.at(l * n + j);
      y.push_back(std::fmax(sum, 0));
    }
  for (const std::string& kernel : matmul_kernels())
    for (const bool packed : {false, true}) {
      const KernelCase c = {.kernel = kernel,
                            .op = "MatMul",
                            .attributes = {{"activation", std::string("relu")}},
                            .operands = {a, b, bias},
                            .weights = packed ? std::vector<std::size_t>{1, 2} : std::vector<std::size_t>{}};
      expect_close(run_kernel(c)[0], Tensor::of(DType::f32, {m, n}, y), 1e-5, kernel);
    }
}

struct Row {
  Shape a, b;
};

TEST(MatMul, ShapesTypesThreads) {
  const Row rows[] = {
      {{1, 384}, {384, 200}},    {{16, 64}, {64, 192}},  {{7, 13}, {13, 5}},     {{2, 5, 33}, {33, 17}},   {{3, 4, 9, 8}, {3, 4, 8, 7}},
      {{2, 1, 3, 4}, {5, 4, 6}}, {{4, 3}, {2, 3, 5}},    {{100, 40}, {40, 130}}, {{0, 4}, {4, 3}},         {{3, 0}, {0, 4}},
      {{3, 4}, {4, 0}},          {{2, 3, 3}, {1, 3, 2}}, {{1, 130}, {130, 67}},  {{4, 256}, {256, 264}},   {{2, 1, 2, 8}, {3, 8, 16}},
      {{0, 2, 4}, {0, 4, 3}},    {{2, 3, 0}, {2, 0, 4}}, {{129, 72}, {72, 136}}, {{3, 1000}, {1000, 520}}, {{2, 2, 77}, {77, 16}}};
  for (const std::string& kernel : matmul_kernels())
    for (const Row& row : rows)
      for (const DType dtype : kFloats)
        for (const int threads : {1, 3})
          for (const bool packed : {false, true}) {
            KernelCase c = {.kernel = kernel, .op = "MatMul", .operands = {random_tensor(dtype, row.a, 1), random_tensor(dtype, row.b, 2)}};
            c.threads = threads;
            if (packed) c.weights = {1};
            expect_kernel_matches_op(c, tolerance_of(dtype));
          }
}

TEST(MatMul, ActivationsAndResidual) {
  for (const std::string& kernel : matmul_kernels())
    for (const char* activation : {"none", "gelu", "gelu_tanh", "silu", "relu", "tanh", "sigmoid"})
      for (const DType dtype : kFloats)
        for (const std::int64_t m : {1, 3, 70})
          for (const bool residual : {false, true})
            for (const int threads : {1, 2}) {
              KernelCase c = {.kernel = kernel,
                              .op = "MatMul",
                              .attributes = {{"activation", std::string(activation)}},
                              .operands = {random_tensor(dtype, {1, m, 20}, 1), random_tensor(dtype, {20, 150}, 2, 0.3),
                                           random_tensor(dtype, {150}, 3)}};
              if (residual) c.operands.emplace_back(random_tensor(dtype, {1, m, 150}, 4));
              c.weights = {1, 2};
              c.threads = threads;
              expect_kernel_matches_op(c, tolerance_of(dtype));
            }
}

// As GPUs finish their sums: vectors of several columns at a time, and without bias.
TEST(MatMul, ActivationsOfAlignedRows) {
  for (const std::string& kernel : matmul_kernels())
    for (const char* activation : {"none", "gelu", "gelu_tanh", "silu", "relu", "tanh", "sigmoid"})
      for (const DType dtype : kFloats)
        for (const bool bias : {false, true})
          for (const bool residual : {false, true}) {
            KernelCase c = {
                .kernel = kernel,
                .op = "MatMul",
                .attributes = {{"activation", std::string(activation)}},
                .operands = {random_tensor(dtype, {2, 9, 64}, 1), random_tensor(dtype, {64, 96}, 2, 0.2), std::nullopt, std::nullopt}};
            if (bias) c.operands[2] = random_tensor(dtype, {96}, 3);
            if (residual) c.operands[3] = random_tensor(dtype, {2, 9, 96}, 4);
            expect_kernel_matches_op(c, tolerance_of(dtype));
          }
}

// As decoding has it. Columns that a warp reads in part, at once and in several turns; blocks whose last columns are missing.
TEST(MatMul, OneRowOfAWeight) {
  const std::pair<std::int64_t, std::int64_t> extents[] = {{8, 1}, {64, 96}, {256, 7}, {1104, 333}, {2048, 130}, {4096, 64}, {20000, 9}};
  for (const std::string& kernel : matmul_kernels())
    for (const auto& [k, n] : extents)
      for (const DType dtype : kFloats)
        for (const char* activation : {"none", "gelu_tanh", "silu"}) {
          const bool is_bare = activation == std::string("none");
          KernelCase c = {
              .kernel = kernel,
              .op = "MatMul",
              .attributes = {{"activation", std::string(activation)}},
              .operands = {random_tensor(dtype, {1, 1, k}, 1), random_tensor(dtype, {k, n}, 2, 1 / std::sqrt(static_cast<double>(k)))}};
          if (!is_bare) c.operands.insert(c.operands.end(), {random_tensor(dtype, {n}, 3), random_tensor(dtype, {1, 1, n}, 4)});
          c.weights = {1};
          expect_kernel_matches_op(c, tolerance_of(dtype));
        }
}

// As decoding of several sequences has it: every number of rows; k in one piece and in many, odd ones, columns that end inside a tile.
TEST(MatMul, FewRowsOfAWeight) {
  const std::pair<std::int64_t, std::int64_t> extents[] = {{8, 1}, {1, 7}, {37, 9}, {64, 96}, {1104, 67}, {4099, 26}};
  for (const std::string& kernel : matmul_kernels())
    for (const auto& [k, n] : extents)
      for (const DType dtype : {DType::f16, DType::bf16})
        for (std::int64_t m = 2; m <= 17; ++m) {
          const Shape rows = m % 3 == 0 ? Shape{m / 3, 3, k} : Shape{m, k};
          Shape result = rows;
          result.back() = n;
          KernelCase c = {.kernel = kernel,
                          .op = "MatMul",
                          .attributes = {{"activation", std::string(m % 2 == 0   ? "none"
                                                                    : m % 3 == 0 ? "relu"
                                                                                 : "gelu_tanh")}},
                          .operands = {random_tensor(dtype, rows, 1),
                                       random_tensor(dtype, {k, n}, 2, 1 / std::sqrt(static_cast<double>(k))), std::nullopt, std::nullopt}};
          if (m % 4 < 2) c.operands[2] = random_tensor(dtype, {n}, 3);
          if (m % 2 == 1) c.operands[3] = random_tensor(dtype, result, 4);
          c.weights = {1};
          expect_kernel_matches_op(c, tolerance_of(dtype));
        }
}

// Cut as large matrices are, into blocks that meet in clusters.
TEST(MatMul, FewRowsOfAWideWeight) {
  for (const std::string& kernel : matmul_kernels())
    for (const auto& [k, n] : {std::pair<std::int64_t, std::int64_t>{2056, 516}, {72, 14343}}) {
      KernelCase c = {
          .kernel = kernel,
          .op = "MatMul",
          .operands = {random_tensor(DType::bf16, {5, k}, 1), random_tensor(DType::bf16, {k, n}, 2, 1 / std::sqrt(static_cast<double>(k))),
                       random_tensor(DType::bf16, {n}, 3)}};
      c.weights = {1};
      c.threads = 2;
      expect_kernel_matches_op(c, tolerance_of(DType::bf16));
    }
}

// What no kernel of the CPU but the plain one takes, on GPUs.
TEST(MatMul, WideFloatsAndIntegers) {
  const auto ints = [](DType dtype, Shape shape) {
    std::vector<std::int64_t> values;
    for (std::int64_t i = 0; i < element_count(shape); ++i) values.push_back(i * 7919 % 201 - 100);
    return Tensor::of_ints(dtype, std::move(shape), values);
  };
  for (const DType dtype : {DType::f64, DType::i8, DType::u8, DType::i16, DType::i32, DType::u32, DType::i64, DType::u64}) {
    const auto make = [&](Shape shape, unsigned seed) {
      return dtype == DType::f64 ? random_tensor(dtype, shape, seed) : ints(dtype, shape);
    };
    expect_kernel_matches_op({.kernel = "plain",
                              .op = "MatMul",
                              .attributes = {{"activation", std::string("silu")}},
                              .operands = {make({3, 1, 7, 21}, 1), make({2, 21, 18}, 2), make({18}, 3), make({3, 2, 7, 18}, 4)}},
                             dtype == DType::f64 ? 1e-12 : 0);
  }
}

// Whichever is the fastest is taken, so each must be right; one that the library does not know is as none.
TEST(MatMul, EveryAlgorithmOfTheLibrary) {
  std::size_t most = 0;
  for (const std::string& kernel : matmul_kernels())
    for (const Row& row : {Row{{16, 1024}, {1024, 512}}, Row{{64, 1024}, {1024, 384}}, Row{{3, 40, 64}, {3, 64, 72}}})
      for (const DType dtype : kFloats) {
        KernelCase c = {
            .kernel = kernel, .op = "MatMul", .operands = {random_tensor(dtype, row.a, 1, 0.3), random_tensor(dtype, row.b, 2, 0.3)}};
        std::vector<std::string> algorithms = algorithms_of(c);
        most = std::max(most, algorithms.size());
        if (!algorithms.empty()) algorithms.emplace_back("id=1234567 of another version");
        for (const std::string& algorithm : algorithms) {
          SCOPED_TRACE(algorithm);
          c.algorithm = algorithm;
          expect_kernel_matches_op(c, 2 * tolerance_of(dtype));
        }
      }
  if (most == 0) GTEST_SKIP() << "no kernel here has several algorithms";
  EXPECT_GT(most, 2u);
}

TEST(MatMul, NotANumberAndInfinity) {
  Tensor a = random_tensor(DType::f32, {5, 6}, 1);
  a.mutable_as<float>()[3] = NAN;
  a.mutable_as<float>()[6 + 2] = INFINITY;
  for (const std::string& kernel : matmul_kernels())
    expect_kernel_matches_op({.kernel = kernel, .op = "MatMul", .operands = {a, random_tensor(DType::f32, {6, 7}, 2)}}, 1e-5);
}

}  // namespace
}  // namespace tandem::test
