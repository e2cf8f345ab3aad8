// The products of a MatMul as batches of matrices that lie at equal distances.
#pragma once

#include <cstdint>
#include <vector>

#include "ops/matmul/problem_cpu.h"

namespace tandem {

struct ProductBatches {
  std::int64_t count = 1, a_stride = 0, b_stride = 0;  // of every batch
  std::vector<MatMulProblem::Offsets> first;           // of each batch
};

// The fewest batches that are all alike; there must be a product. No batch has more than `most` products.
ProductBatches batches_of(const MatMulProblem& problem, std::int64_t most);

}  // namespace tandem
