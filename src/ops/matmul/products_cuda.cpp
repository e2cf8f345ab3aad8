#include "ops/matmul/products_cuda.h"

#include <algorithm>

#include "core/check.h"

namespace tandem {
namespace {

using Offsets = MatMulProblem::Offsets;

// How many products from the first on are equally far apart.
std::int64_t even_run(const std::vector<Offsets>& p) {
  std::size_t i = 2;
  while (i < p.size() && p[i].a - p[i - 1].a == p[1].a - p[0].a && p[i].b - p[i - 1].b == p[1].b - p[0].b) ++i;
  return static_cast<std::int64_t>(std::min(i, p.size()));
}

// Whether each `length` of them are as far apart as the first two are.
bool all_even(const std::vector<Offsets>& p, std::int64_t length) {
  for (std::size_t i = 1; i < p.size(); ++i)
    if (i % static_cast<std::size_t>(length) != 0 && (p[i].a - p[i - 1].a != p[1].a - p[0].a || p[i].b - p[i - 1].b != p[1].b - p[0].b))
      return false;
  return true;
}

}  // namespace

ProductBatches batches_of(const MatMulProblem& problem, std::int64_t most) {
  const std::vector<Offsets>& p = problem.products;
  check(!p.empty(), "a product to batch");
  const auto total = static_cast<std::int64_t>(p.size());
  ProductBatches batches;
  for (std::int64_t length = std::min(even_run(p), most); length > 1; --length)
    if (total % length == 0 && all_even(p, length)) {
      batches = {length, p[1].a - p[0].a, p[1].b - p[0].b, {}};
      break;
    }
  for (std::int64_t i = 0; i < total; i += batches.count) batches.first.push_back(p[static_cast<std::size_t>(i)]);
  return batches;
}

}  // namespace tandem
