// How a GPU reduces dimensions of a dense tensor: the kept and the lost dimensions, and who reads what. Planned on the host once per shape.
#pragma once

#include <cstdint>
#include <vector>

#include "ops/aligned_cuda.h"
#include "ops/divisor_cuda.h"
#include "tandem/types.h"

namespace tandem::cuda {

inline constexpr int kReduceRank = 8, kReduceThreads = 256;
inline constexpr int kColumnLanes = 32, kColumnLines = kReduceThreads / kColumnLanes;

// Dimensions that are walked, innermost first, strides in elements.
struct ReduceAxes {
  int rank = 0;
  Divisor extents[kReduceRank];
  std::int64_t strides[kReduceRank] = {};
};

// Rows: the innermost dimension is lost; a team of threads reads the `items` vectors of one output, side by side.
// Columns: it is kept; a thread reads the vectors of one group of outputs side by side, `items` of them.
// Either is cut into `splits` parts of `chunk` items, whose results wait in the workspace to be joined if there are several.
struct ReducePlan {
  ReduceAxes kept, lost;  // counted in vectors where these lie
  bool rows = true;
  int vector = 1;             // elements that one load takes
  std::uint32_t outputs = 0;  // of the result
  std::uint32_t groups = 0;   // outputs, or vectors of them
  std::uint32_t items = 0, chunk = 0;
  Divisor splits;
  int team = 1;             // threads of a row, a power of two up to kReduceThreads
  std::int64_t extent = 0;  // elements of one output
};

// Of a dense tensor; `vector`: elements of 16 bytes, of which a load may take several. Rank at most kReduceRank. Error(unsupported) where
// there are more outputs, or elements of one, than kMostItems.
ReducePlan plan_reduce(const Shape& shape, const std::vector<int>& axes, int vector);

// For addresses that are multiples of 16, and for any.
Plans<ReducePlan> plan_reduce(const Shape& shape, const std::vector<int>& axes, DType dtype);

// Of the parts of a split reduction, whichever plan is taken; the largest accumulator has 16 bytes.
std::size_t reduce_workspace(const Plans<ReducePlan>& plans);

}  // namespace tandem::cuda
