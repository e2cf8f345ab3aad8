#include <gtest/gtest.h>

#include <cmath>

#include "kernels/kernel_case.h"
#include "ops/quantize/operands.h"

namespace tandem::test {
namespace {

struct Types {
  DType a, b;
};
const Types kTypes[] = {{DType::i8, DType::i8},
                        {DType::f8e4m3, DType::f8e4m3},
                        {DType::f8e5m2, DType::f8e4m3},
                        {DType::f8e4m3, DType::f8e5m2},
                        {DType::f8e5m2, DType::f8e5m2}};

// Integers over all of their range.
Tensor random_codes(DType type, Shape shape, unsigned seed) {
  Tensor t = random_tensor(type, std::move(shape), seed, is_float(type) ? 2 : 100);
  for (std::int64_t i = 0; !is_float(type) && i < t.count(); i += 5) store_element(type, t.mutable_data(), i, i % 2 == 0 ? -128 : 127);
  return t;
}

struct Row {
  std::int64_t m, k, n;
  bool columns;  // a scale for each
};

KernelCase case_of(const Row& row, const Types& types, DType to, DType scale) {
  KernelCase c = {.kernel = "quant_matmul", .op = "QuantMatMul", .attributes = {{"to", to}}};
  const double about = (is_float(types.a) ? 0.3 : 3e-4) / std::sqrt(static_cast<double>(row.k + 1));
  Tensor scales = random_tensor(scale, row.columns ? Shape{row.n} : Shape{}, 7);
  for (std::int64_t i = 0; i < scales.count(); ++i) store_element(scale, scales.mutable_data(), i, about * (0.5 + std::abs(scales.at(i))));
  c.operands.resize(kQuantScaleA + 1);
  c.operands[kDequantA] = random_codes(types.a, {row.m, row.k}, 1);
  c.operands[kDequantB] = random_codes(types.b, {row.k, row.n}, 2);
  c.operands[kDequantScale] = scales;
  c.operands[kQuantScaleA] = Tensor::of(scale, {1}, std::vector<double>{0.3});
  c.weights = {kDequantB};
  return c;
}

// Tensor cores of GPUs add products of 8-bit floats with 13 bits behind the largest of 32, up to four times before they are added in f32.
double tolerance_of_product(const KernelCase& c, DType to) {
  const bool weak = on_cuda() && is_float(c.operands[kDequantA]->dtype()) && !c.exact;
  if (to != DType::f32) return 2 * tolerance_of(to);
  return weak ? 1e-3 : 2e-6;
}

void expect_right(const KernelCase& c, DType to) { expect_kernel_matches_op(c, tolerance_of_product(c, to)); }

const Row kRows[] = {{1, 64, 64, true},    {1, 64, 64, false},     {7, 96, 32, true},   {16, 160, 144, false},
                     {40, 112, 80, true},  {5, 512, 256, false},   {300, 64, 48, true}, {513, 128, 32, false},
                     {17, 4096, 32, true}, {128, 128, 128, false}, {0, 16, 16, true},   {33, 512, 144, true}};

// y = Σ a·b·sa·s by a loop of its own, so that not only the op's evaluator vouches for the kernels.
TEST(QuantMatMul, PlainLoop) {
  for (const Types& types : kTypes)
    for (const std::int64_t m : {1, 5, 23})
      for (const bool exact : {false, true}) {
        KernelCase c = case_of({m, 96, 64, true}, types, DType::f32, DType::f32);
        c.exact = exact;
        const Tensor &a = *c.operands[kDequantA], &b = *c.operands[kDequantB], &s = *c.operands[kDequantScale];
        std::vector<double> y;
        for (std::int64_t i = 0; i < m; ++i)
          for (std::int64_t j = 0; j < 64; ++j) {
            double sum = 0;
            for (std::int64_t l = 0; l < 96; ++l) sum += a.at(i * 96 + l) * b.at(l * 64 + j);
            y.push_back(sum * c.operands[kQuantScaleA]->at(0) * s.at(j));
          }
        const Tensor expected = Tensor::of(DType::f32, {m, 64}, y);
        expect_close(run_kernel(c)[0], expected, tolerance_of_product(c, DType::f32), std::string(to_string(types.a)));
      }
}

TEST(QuantMatMul, ShapesTypesScales) {
  for (const Row& row : kRows)
    for (const Types& types : kTypes)
      for (const DType to : {DType::f32, DType::f16, DType::bf16})
        for (const bool exact : {false, true}) {
          KernelCase c = case_of(row, types, to, exact ? to : DType::f32);
          c.exact = exact;
          c.threads = exact ? 3 : 1;
          expect_right(c, to);
        }
}

// b is no weight, or its extents are none that tensor cores take.
TEST(QuantMatMul, OddExtentsAndComputedMatrices) {
  for (const Types& types : kTypes)
    for (const std::int64_t n : {1, 3, 31, 33, 64})
      for (const std::int64_t m : {1, 9, 20}) {
        KernelCase c = case_of({m, n == 64 ? 64 : 37, n, true}, types, DType::f32, DType::f32);
        if (n == 64) c.weights.clear();
        c.exact = true;
        expect_right(c, DType::f32);
      }
}

TEST(QuantMatMul, ActivationsBiasResidual) {
  for (const char* activation : {"none", "gelu", "gelu_tanh", "silu", "relu", "tanh", "sigmoid"})
    for (const DType to : {DType::f32, DType::f16, DType::bf16})
      for (const Types& types : kTypes)
        for (const bool columns : {false, true})
          for (const bool residual : {false, true}) {
            KernelCase c = case_of({20, 64, 96, columns}, types, to, DType::f32);
            c.attributes.emplace_back("activation", std::string(activation));
            c.operands[kDequantBias] = random_tensor(to, {96}, 5);
            if (residual) c.operands[kDequantResidual] = random_tensor(to, {20, 96}, 6);
            if (residual) c.weights.push_back(kDequantBias);
            expect_right(c, to);
          }
}

// That i32 just holds, and that it does not; f32, in which the others are added, rounds each of these sums on its way.
TEST(QuantMatMul, LargeSumsOfIntegers) {
  for (const std::int64_t k : {4096, 131056, 131088}) {
    KernelCase c = case_of({2, k, 16, true}, kTypes[0], DType::f32, DType::f32);
    c.operands[kDequantA] = Tensor::of(DType::i8, {2, k}, std::vector<double>(static_cast<std::size_t>(2 * k), -128));
    c.operands[kDequantB] = Tensor::of(DType::i8, {k, 16}, std::vector<double>(static_cast<std::size_t>(k * 16), -128));
    const bool whole = on_cuda() && k < 131072;
    expect_kernel_matches_op(c, whole ? 2e-6 : tolerance_of(DType::f32));
  }
}

TEST(QuantMatMul, BatchesAndNotANumber) {
  KernelCase c = case_of({6, 64, 64, true}, kTypes[1], DType::f32, DType::f32);
  Tensor a = random_codes(DType::f8e4m3, {2, 3, 64}, 1);
  store_element(DType::f8e4m3, a.mutable_data(), 70, NAN);
  c.operands[kDequantA] = a;
  expect_right(c, DType::f32);
  Tensor b = *c.operands[kDequantB];
  store_element(DType::f8e4m3, b.mutable_data(), 65, NAN);
  c.operands[kDequantB] = b;
  expect_right(c, DType::f32);
}

}  // namespace
}  // namespace tandem::test
