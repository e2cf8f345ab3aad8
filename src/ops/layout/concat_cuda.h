#pragma once

#include <cstdint>

#include "device/cuda/start.h"
#include "ops/divisor_cuda.h"

namespace tandem::cuda {

inline constexpr int kConcatParts = 8;

// Some neighbouring parts of a concatenation, counted in vectors of `bytes` bytes: line o of the result, `pitch` long, gets from
// `to_offset` on line o of every part. The parts begin at begins[k] within what this launch writes; unused ones at the largest number.
struct ConcatView {
  int bytes = 1;
  Divisor line;                       // what it writes of a line
  std::int64_t lines = 0, first = 0;  // of all; the first line of this launch
  std::uint32_t items = 0;
  std::int64_t pitch = 0, to_offset = 0;
  const void* from[kConcatParts] = {};
  std::uint32_t begins[kConcatParts] = {}, widths[kConcatParts] = {};
};

void launch_concat(ConcatView view, void* to, const Start& start);

}  // namespace tandem::cuda
