// How a pointwise kernel of GPUs walks its operands: the fewest dimensions, and vectors where memory allows them.
#pragma once

#include <vector>

#include "ops/pointwise/pointwise_source_cuda.h"

namespace tandem::pointwise {

struct PointwiseView {
  PointwiseForm form;
  PointwiseArgs args{};  // without addresses
  unsigned blocks = 0;   // of the kernel's grid; 0: nothing to do
  // Bytes that the address of an operand must be a multiple of, so that vectors can be moved whole; the last is the result's.
  std::vector<std::size_t> alignments;
};

// `strides`: of each operand over the dimensions of `shape`, the result's.
PointwiseView pointwise_view(Program program, std::vector<DType> dtypes, const std::vector<Shape>& strides, DType result,
                             const Shape& shape);

}  // namespace tandem::pointwise
