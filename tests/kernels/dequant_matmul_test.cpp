#include <gtest/gtest.h>

#include <cmath>

#include "kernels/kernel_case.h"
#include "ops/quantize/operands.h"

namespace tandem::test {
namespace {

const DType kCodes[] = {DType::i8, DType::u8, DType::i4, DType::u4, DType::f8e4m3, DType::f8e5m2};

Tensor random_codes(DType type, Shape shape, unsigned seed) {
  return random_tensor(type, std::move(shape), seed, is_float(type) ? 2 : quantized_range(type).most / 3);
}

Tensor random_scales(DType type, Shape shape, double about) {
  Tensor t = random_tensor(type, std::move(shape), 7);
  for (std::int64_t i = 0; i < t.count(); ++i) store_element(type, t.mutable_data(), i, about * (0.5 + std::abs(t.at(i))));
  return t;
}

struct Row {
  std::int64_t m, k, n, block;  // block 0: a scale per column; -1: one scale
};

KernelCase case_of(const Row& row, DType type, DType codes, DType scale, bool zero) {
  KernelCase c = {.kernel = "dequant_matmul", .op = "DequantMatMul", .attributes = {{"block_size", std::max<std::int64_t>(0, row.block)}}};
  const double about = is_float(codes) ? 0.3 : 1 / quantized_range(codes).most;
  const Shape scales = row.block < 0 ? Shape{} : row.block == 0 ? Shape{row.n} : Shape{(row.k + row.block - 1) / row.block, row.n};
  c.operands.resize(kDequantScale + (zero ? 2 : 1));
  c.operands[kDequantA] = random_tensor(type, {row.m, row.k}, 1);
  c.operands[kDequantB] = random_codes(codes, {row.k, row.n}, 2);
  c.operands[kDequantScale] = random_scales(scale, scales, about);
  if (zero) c.operands[kDequantZero] = random_codes(codes, scales, 3);
  return c;
}

// A 16-bit product reads weights that were rounded to 16 bits on GPUs.
double tolerance_of_product(DType type) { return type == DType::f32 ? 2e-6 : 2 * tolerance_of(type); }

// y = x·(w - z)·s by a loop of its own, so that not only the op's evaluator vouches for the kernels.
TEST(DequantMatMul, PlainLoop) {
  for (const DType codes : kCodes)
    for (const std::int64_t m : {1, 5, 23}) {
      KernelCase c = case_of({m, 96, 64, 32}, DType::f32, codes, DType::f32, !is_float(codes));
      const Tensor &x = *c.operands[kDequantA], &w = *c.operands[kDequantB], &s = *c.operands[kDequantScale];
      std::vector<double> y;
      for (std::int64_t i = 0; i < m; ++i)
        for (std::int64_t j = 0; j < 64; ++j) {
          double sum = 0;
          for (std::int64_t l = 0; l < 96; ++l) {
            const double z = is_float(codes) ? 0 : c.operands[kDequantZero]->at(l / 32 * 64 + j);
            sum += x.at(i * 96 + l) * (w.at(l * 64 + j) - z) * s.at(l / 32 * 64 + j);
          }
          y.push_back(sum);
        }
      for (const bool packed : {false, true}) {
        if (packed) c.weights = {kDequantB};
        expect_close(run_kernel(c)[0], Tensor::of(DType::f32, {m, 64}, y), 2e-6, std::string(to_string(codes)));
      }
    }
}

const Row kRows[] = {{1, 64, 64, 0},     {1, 64, 64, 32},   {4, 128, 96, 64},   {7, 100, 34, 32},   {8, 96, 32, 32},
                     {16, 160, 130, 32}, {3, 33, 66, -1},   {5, 40, 2, 16},     {13, 64, 258, 128}, {2, 512, 512, 128},
                     {40, 96, 72, 0},    {1, 2048, 48, 32}, {17, 256, 512, 64}, {1, 4096, 32, -1},  {0, 4, 4, 2},
                     {3, 0, 4, 0},       {3, 4, 0, 2},      {9, 1024, 32, 0},   {6, 288, 544, 96}};

TEST(DequantMatMul, ShapesCodesBlocks) {
  for (const Row& row : kRows)
    for (const DType codes : kCodes)
      for (const DType type : {DType::f32, DType::f16, DType::bf16})
        for (const bool zero : {false, true})
          for (const bool packed : {false, true}) {
            KernelCase c = case_of(row, type, codes, zero ? DType::f32 : type, zero && row.k > 0);
            if (packed) c.weights = {kDequantB, kDequantScale};
            c.threads = packed ? 3 : 1;
            expect_kernel_matches_op(c, tolerance_of_product(type));
          }
}

// As decoding has it, scales being weights too: every number of rows, codes streamed as GPUs keep them, k and n that end inside of what
// they take at once.
TEST(DequantMatMul, FewRowsOfAWeight) {
  for (const DType codes : kCodes)
    for (const std::int64_t block : {-1, 0, 32, 64, 128, 256, 48})
      for (std::int64_t m = 1; m <= 17; ++m) {
        const DType type = m % 2 == 0 ? DType::f16 : DType::bf16;
        KernelCase c =
            case_of({m, 256 * (m % 3) + 90 + m, bits(codes) == 4 ? 66 : 67, block}, type, codes, m % 4 < 2 ? DType::f32 : type, false);
        if (m % 3 == 1) c.operands[kDequantBias] = random_tensor(type, {c.operands[kDequantB]->shape()[1]}, 5);
        if (m % 3 == 2) c.operands[kDequantResidual] = random_tensor(type, {m, c.operands[kDequantB]->shape()[1]}, 6);
        c.attributes.emplace_back("activation", std::string(m % 4 == 0 ? "silu" : "none"));
        c.weights = {kDequantB, kDequantScale};
        c.threads = 2;
        expect_kernel_matches_op(c, tolerance_of_product(type));
      }
}

// Cut as large matrices are, into blocks that meet in clusters.
TEST(DequantMatMul, FewRowsOfAWideWeight) {
  for (const DType codes : {DType::i8, DType::i4, DType::f8e4m3})
    for (const std::int64_t block : {0, 64, 128}) {
      KernelCase c = case_of({7, 2176, 520, block}, DType::bf16, codes, DType::f32, false);
      c.weights = {kDequantB, kDequantScale};
      c.threads = 2;
      expect_kernel_matches_op(c, tolerance_of_product(DType::bf16));
    }
}

TEST(DequantMatMul, OddColumns) {
  for (const DType codes : {DType::i8, DType::u8, DType::f8e4m3, DType::f8e5m2})
    for (const std::int64_t n : {1, 3, 31, 33, 65})
      for (const std::int64_t m : {1, 9}) {
        KernelCase c = case_of({m, 37, n, 10}, DType::f32, codes, DType::f32, true);
        c.weights = {kDequantB};
        expect_kernel_matches_op(c, 2e-6);
      }
}

TEST(DequantMatMul, ActivationsBiasResidual) {
  for (const char* activation : {"none", "gelu", "gelu_tanh", "silu", "relu", "tanh", "sigmoid"})
    for (const DType type : {DType::f32, DType::f16, DType::bf16})
      for (const std::int64_t m : {1, 3, 20})
        for (const bool residual : {false, true}) {
          KernelCase c = case_of({m, 64, 96, 32}, type, DType::i4, DType::f32, false);
          c.attributes.emplace_back("activation", std::string(activation));
          c.operands[kDequantBias] = random_tensor(type, {96}, 5);
          if (residual) c.operands[kDequantResidual] = random_tensor(type, {m, 96}, 6);
          c.weights = {kDequantB};
          expect_kernel_matches_op(c, tolerance_of_product(type) * (type == DType::f32 ? 2 : 1));
        }
}

TEST(DequantMatMul, BatchesAndNotANumber) {
  KernelCase c = case_of({6, 64, 64, 0}, DType::f32, DType::f8e4m3, DType::f32, false);
  Tensor x = random_tensor(DType::f32, {2, 3, 64}, 1);
  store_element(DType::f32, x.mutable_data(), 70, NAN);
  c.operands[kDequantA] = x;
  c.weights = {kDequantB};
  expect_kernel_matches_op(c, 2e-6);
  Tensor w = *c.operands[kDequantB];
  store_element(DType::f8e4m3, w.mutable_data(), 65, NAN);
  c.operands[kDequantB] = w;
  expect_kernel_matches_op(c, 2e-6);
}

TEST(DequantMatMul, RefusesRowsThatEndInsideAByte) {
  const KernelCase c = case_of({1, 32, 33, 32}, DType::f32, DType::i4, DType::f32, false);
  EXPECT_EQ(refusal_of(c).value_or(""), "rows of b end inside a byte");
}

}  // namespace
}  // namespace tandem::test
