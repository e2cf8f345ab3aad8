// Conv as evaluator and kernels see it: numbers.
#pragma once

#include <cstdint>

#include "ops/conv/window.h"

namespace tandem::conv {

enum Operand : std::size_t { kX, kWeight, kBias, kResidual };

// Channels of x are [groups, group_in], those of the result [groups, group_out].
struct Problem {
  DType dtype = DType::f32;
  bool channels_last = false;  // in memory, of images and of the weight
  std::int64_t batch = 0, groups = 1, group_in = 0, group_out = 0;
  window::Axes axes;
  std::int64_t in_count() const { return axes[0].in * axes[1].in * axes[2].in; }
  std::int64_t out_count() const { return axes[0].out * axes[1].out * axes[2].out; }
  std::int64_t taps() const { return axes[0].kernel * axes[1].kernel * axes[2].kernel; }
  bool is_empty() const { return batch * groups * group_out * out_count() == 0; }
};

// Of a bound call, in either layout.
Problem problem_of(const OpCall& call);
// The same call with the channels first.
OpCall channels_first(const OpCall& call);
// Extents of the window: those of the weight.
std::vector<std::int64_t> kernel_of(const OpCall& call);

}  // namespace tandem::conv
