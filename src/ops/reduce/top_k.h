// What the definition of TopK and its kernels share.
#pragma once

#include <cstdint>

#include "graph/op_def.h"

namespace tandem {

// x is [outer, extent, inner], values and indices are [outer, k, inner]. Line `l` begins at element first(l) of x.
struct TopKView {
  DType dtype = DType::f32;
  std::int64_t outer = 1, extent = 1, inner = 1, k = 0;
  bool largest = true;

  std::int64_t lines() const { return outer * inner; }
  std::int64_t first(std::int64_t line) const { return line / inner * extent * inner + line % inner; }
  // Of the line's first result.
  std::int64_t first_result(std::int64_t line) const { return line / inner * k * inner + line % inner; }
};

// Of a bound call. Error(invalid_argument) where k is negative or larger than the extent.
TopKView top_k_view(const OpCall& call);

}  // namespace tandem
