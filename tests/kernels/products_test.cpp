// How the products of a MatMul are put into batches that lie evenly.
#include <gtest/gtest.h>

#include "kernels/kernel_case.h"
#include "ops/matmul/products_cuda.h"

namespace tandem::test {
namespace {

MatMulProblem problem_of(Shape a, Shape b) {
  return matmul_problem(call_of({.op = "MatMul", .operands = {Tensor(DType::f32, std::move(a)), Tensor(DType::f32, std::move(b))}}));
}

struct Row {
  Shape a, b;
  std::int64_t most, count;
};

TEST(Products, BatchesHoldEveryProductOnce) {
  const Row rows[] = {{{5, 2, 3}, {3, 4}, 100, 1},           // one matrix: all rows are one product
                      {{6, 2, 3}, {6, 3, 4}, 100, 6},        // one batch of six
                      {{6, 2, 3}, {6, 3, 4}, 4, 3},          // no more than four
                      {{1, 2, 3}, {7, 3, 4}, 100, 7},        // the same a for all
                      {{2, 1, 2, 3}, {5, 3, 4}, 100, 5},     // a changes after five
                      {{2, 5, 2, 3}, {2, 1, 3, 4}, 100, 5},  // b changes after five
                      {{2, 1, 2, 3}, {1, 2, 3, 4}, 100, 2}, {{3, 1, 2, 2, 3}, {1, 4, 2, 3, 4}, 100, 2}, {{1, 2, 3}, {1, 1, 3, 4}, 100, 1}};
  for (const Row& row : rows) {
    const MatMulProblem problem = problem_of(row.a, row.b);
    const ProductBatches batches = batches_of(problem, row.most);
    const std::string what = to_string(row.a) + to_string(row.b);
    EXPECT_EQ(batches.count, row.count) << what;
    ASSERT_EQ(static_cast<std::size_t>(batches.count) * batches.first.size(), problem.products.size()) << what;
    for (std::size_t i = 0; i < problem.products.size(); ++i) {
      const auto batch = i / static_cast<std::size_t>(batches.count), in = i % static_cast<std::size_t>(batches.count);
      const MatMulProblem::Offsets &product = problem.products[i], &first = batches.first[batch];
      const auto step = static_cast<std::int64_t>(in);
      EXPECT_EQ(product.a, first.a + step * batches.a_stride) << what << " product " << i;
      EXPECT_EQ(product.b, first.b + step * batches.b_stride) << what << " product " << i;
      EXPECT_EQ(product.c, first.c + step * problem.m * problem.n) << what << " product " << i;
    }
  }
}

}  // namespace
}  // namespace tandem::test
