// How scales lie, as launch functions take it.
#pragma once

#include <algorithm>

#include "ops/quantize/quantize_cuda.h"
#include "ops/quantize/scales.h"

namespace tandem::cuda {

// All but pointers, types and the count.
inline Quantizing quantizing(const ScaleLayout& layout) {
  Quantizing q{};
  q.extent = layout.extent;
  q.inner = layout.inner;
  q.block = layout.block;
  q.outer_step = layout.outer_step;
  q.axis_step = layout.axis_step;
  q.inner_step = layout.inner_step;
  const auto divisor = [](std::int64_t by) { return Divisor(std::clamp<std::int64_t>(by, 1, kMostItems)); };
  q.by_inner = divisor(layout.inner);
  q.by_extent = divisor(layout.extent);
  q.by_block = divisor(layout.block);
  return q;
}

}  // namespace tandem::cuda
