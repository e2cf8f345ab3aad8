// TF32: f32 with 10 bits of mantissa, in which tensor cores multiply. What kernels may lose where it is asked for, and that they lose
// nothing where it is not. Rows of a GPU with TANDEM_TEST_DEVICE=cuda; kernels of the CPU must not heed it.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>

#include "kernels/kernel_case.h"

namespace tandem::test {
namespace {

constexpr double kTf32 = 0x1p-10;  // of an operand, cut off rather than rounded
constexpr double kF32 = 0x1p-24;

// Sums in double, and of the magnitudes of what is added.
struct Sums {
  std::vector<double> value, magnitude;
};

Sums product(const Tensor& a, const Tensor& b) {
  const std::int64_t m = a.shape()[0], k = a.shape()[1], n = b.shape()[1];
  Sums sums;
  for (std::int64_t i = 0; i < m; ++i)
    for (std::int64_t j = 0; j < n; ++j) {
      double value = 0, magnitude = 0;
      for (std::int64_t l = 0; l < k; ++l) {
        const double term = a.at(i * k + l) * b.at(l * n + j);
        value += term, magnitude += std::fabs(term);
      }
      sums.value.push_back(value);
      sums.magnitude.push_back(magnitude);
    }
  return sums;
}

// Of one image, 3 by 3 taps, a row and column of zeros around.
Sums convolution(const Tensor& x, const Tensor& w) {
  const std::int64_t channels = x.shape()[1], rows = x.shape()[2], columns = x.shape()[3];
  Sums sums;
  for (std::int64_t o = 0; o < w.shape()[0]; ++o)
    for (std::int64_t i = 0; i < rows; ++i)
      for (std::int64_t j = 0; j < columns; ++j) {
        double value = 0, magnitude = 0;
        for (std::int64_t c = 0; c < channels; ++c)
          for (std::int64_t tap = 0; tap < 9; ++tap) {
            const std::int64_t r = i + tap / 3 - 1, s = j + tap % 3 - 1;
            if (r < 0 || r >= rows || s < 0 || s >= columns) continue;
            const double term = x.at((c * rows + r) * columns + s) * w.at((o * channels + c) * 9 + tap);
            value += term, magnitude += std::fabs(term);
          }
        sums.value.push_back(value);
        sums.magnitude.push_back(magnitude);
      }
  return sums;
}

// The largest error of an element over the magnitudes that it sums.
double error_of(const Tensor& actual, const Sums& sums) {
  EXPECT_EQ(actual.count(), static_cast<std::int64_t>(sums.value.size()));
  double worst = 0;
  for (std::int64_t i = 0; i < actual.count(); ++i) {
    const auto at = static_cast<std::size_t>(i);
    const double error = std::fabs(actual.at(i) - sums.value[at]) / sums.magnitude[at];
    if (!(error <= worst)) worst = error;
  }
  return worst;
}

KernelCase matmul_case(const std::string& kernel, std::int64_t m, std::int64_t k, std::int64_t n) {
  return {.kernel = kernel, .op = "MatMul", .operands = {random_tensor(DType::f32, {m, k}, 1), random_tensor(DType::f32, {k, n}, 2)}};
}

KernelCase conv_case(const std::string& kernel, std::int64_t channels) {
  return {.kernel = kernel,
          .op = "Conv",
          .attributes = {{"pads", std::vector<Dim>(4, Dim(1))}},
          .operands = {random_tensor(DType::f32, {1, channels, 14, 14}, 1), random_tensor(DType::f32, {64, channels, 3, 3}, 2)},
          .weights = {1}};
}

// With each algorithm of the library, and what it takes by itself: the largest errors with TF32, within what TF32 may lose.
std::vector<double> errors_of(KernelCase c, const Sums& sums, std::int64_t terms) {
  std::vector<std::string> algorithms = algorithms_of(c);
  algorithms.emplace_back();
  std::vector<double> errors;
  for (const std::string& algorithm : algorithms) {
    c.algorithm = algorithm;
    errors.push_back(error_of(run_kernel(c)[0], sums));
    const double sum_error = static_cast<double>(terms) * kF32;
    EXPECT_LE(errors.back(), (c.tf32 ? 2 * kTf32 + kTf32 * kTf32 : 0) + sum_error) << c.kernel << " " << algorithm;
  }
  return errors;
}

std::vector<std::string> kernels_for(std::string_view op) {
  std::vector<std::string> names;
  for (const KernelDef* kernel : on_cuda() ? cuda_kernels() : cpu_kernels())
    if (kernel->op == op && !kernel->through_host) names.emplace_back(kernel->name);
  return names;
}

// A kernel of a library that has tensor cores for it.
bool may_round(const std::string& kernel) { return kernel == "cublaslt_matmul" || kernel == "cudnn_conv"; }

// `c` with and without TF32, against sums of `terms` products each.
void expect_rounds_where_asked(KernelCase c, const Sums& sums, std::int64_t terms) {
  if (refusal_of(c)) return;
  for (const double error : errors_of(c, sums, terms)) EXPECT_LE(error, 1e-6) << c.kernel << " has lost digits that nobody gave";
  const std::vector<Tensor> plain = run_kernel(c);
  c.tf32 = true;
  const std::vector<double> errors = errors_of(c, sums, terms);
  const bool unaligned = std::getenv("TANDEM_TEST_UNALIGNED") != nullptr;  // then the library decides whether it does
  if (may_round(c.kernel)) {
    EXPECT_TRUE(unaligned || *std::ranges::max_element(errors) > 1e-5) << c.kernel << " never multiplied TF32";
  } else {
    const std::vector<Tensor> asked = run_kernel(c);
    EXPECT_EQ(std::memcmp(plain[0].data(), asked[0].data(), plain[0].size_bytes()), 0) << c.kernel;
  }
}

TEST(Tf32, ProductsRoundWhereAskedAndNowhereElse) {
  for (const std::string& kernel : kernels_for("MatMul"))
    for (const auto& [m, k, n] : {std::tuple{256, 256, 256}, std::tuple{64, 1024, 384}}) {
      const KernelCase c = matmul_case(kernel, m, k, n);
      expect_rounds_where_asked(c, product(*c.operands[0], *c.operands[1]), k);
    }
}

TEST(Tf32, ConvolutionsRoundWhereAskedAndNowhereElse) {
  for (const std::string& kernel : kernels_for("Conv"))
    for (const std::int64_t channels : {32, 64}) {
      const KernelCase c = conv_case(kernel, channels);
      expect_rounds_where_asked(c, convolution(*c.operands[0], *c.operands[1]), 9 * channels);
    }
}

// What TF32 can hold is multiplied without loss.
TEST(Tf32, SmallIntegersStayExact) {
  for (const std::string& kernel : kernels_for("MatMul")) {
    KernelCase c = matmul_case(kernel, 64, 128, 96);
    for (auto& operand : c.operands) {
      std::vector<double> values;
      for (std::int64_t i = 0; i < operand->count(); ++i) values.push_back(static_cast<double>(i * 7919 % 41 - 20));
      operand = Tensor::of(DType::f32, operand->shape(), values);
    }
    if (refusal_of(c)) continue;
    c.tf32 = true;
    expect_kernel_matches_op(c, 0);
  }
}

// Other types pay no heed to it: the same bits.
TEST(Tf32, OtherTypesAreLeftAlone) {
  for (const std::string& kernel : kernels_for("MatMul"))
    for (const DType dtype : {DType::f16, DType::bf16, DType::f64}) {
      KernelCase c = {
          .kernel = kernel, .op = "MatMul", .operands = {random_tensor(dtype, {64, 128}, 1), random_tensor(dtype, {128, 64}, 2)}};
      if (refusal_of(c)) continue;
      const std::vector<Tensor> plain = run_kernel(c);
      c.tf32 = true;
      const std::vector<Tensor> asked = run_kernel(c);
      EXPECT_EQ(std::memcmp(plain[0].data(), asked[0].data(), plain[0].size_bytes()), 0) << kernel << " " << to_string(dtype);
    }
}

}  // namespace
}  // namespace tandem::test
