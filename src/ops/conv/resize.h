// Resize as evaluator and kernels see it: per resized dimension a table of which rows make a row of the result, and how much of each.
#pragma once

#include <cstdint>
#include <vector>

#include "graph/op_def.h"

namespace tandem::resize {

// Row o of the result is Σ over t < taps of weights[o·taps + t] · row rows[o·taps + t].
struct Table {
  std::int64_t in = 0, out = 0, taps = 1;
  std::vector<std::int64_t> rows;
  std::vector<double> weights;
};

// x is [outer, in…] and the result [outer, out…], over the last dimensions.
struct Problem {
  DType dtype = DType::f32;
  std::int64_t outer = 1;
  std::vector<Table> tables;
  bool copies = false;  // every row is one row: elements are moved as they are
};

// Of a bound call.
Problem problem_of(const OpCall& call);

}  // namespace tandem::resize
