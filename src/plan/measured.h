// Measured symbols of a program: extents that are known only in a run, once the step that measures them is done.
#pragma once

#include <string>
#include <vector>

#include "plan/plan.h"

namespace tandem {

// The value of `symbol` is that of `value`, an i64 scalar, once `step` has run.
struct Measured {
  std::string symbol;
  Dim bound;  // the most it can be
  int step = -1, value = -1;
};
using MeasuredList = std::vector<Measured>;  // in the order of their steps

MeasuredList measured_of(const Program& program);

// Gives the measured symbols their bounds, from the values of the others.
void bind_to_bounds(const MeasuredList& measured, SymbolValues& symbols);

// Whether extents hold one of them.
bool is_measured(const MeasuredList& measured, const std::vector<Dim>& dims);

// The most that each extent can be, whatever is measured; `symbols` have values, measured ones their bounds.
Shape largest_dims(const MeasuredList& measured, const std::vector<Dim>& dims, const SymbolValues& symbols);

// Why no plan for this device can run the program: half a sentence; empty if it can. Sets `step` to the one that is in the way.
std::string refuse_measured(std::string_view device, const Program& program, std::size_t* step);

}  // namespace tandem
