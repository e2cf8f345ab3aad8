// A tensor cut into runs of neighbours whose scale is one number or advances with them.
#pragma once

#include <algorithm>
#include <cstdint>

#include "core/numeric.h"
#include "ops/quantize/scales.h"

namespace tandem {

struct QuantizedRun {
  std::int64_t first = 0, count = 0;  // elements
  std::int64_t scale = 0;             // of the first element
  std::int64_t step = 0;              // of the scale, per element: 0 or 1
};

// Pieces of at most kLongest elements of the operands of a bound QuantizeLinear or DequantizeLinear.
class QuantizedRuns {
 public:
  static constexpr std::int64_t kLongest = 1024;

  explicit QuantizedRuns(const OpCall& call)
      : layout_(scale_layout(call.operand(kQuantizeX), call.operand(kQuantizeScale), call.attributes.integer("axis"),
                             call.attributes.integer("block_size"))) {
    const bool along_line = layout_.inner == 1 && layout_.axis_step != 0;  // scales differ along the last dimension
    rows_ = along_line ? layout_.outer : layout_.outer * layout_.extent;
    length_ = along_line ? layout_.extent : layout_.inner;
    along_line_ = along_line;
    if (!along_line) {
      step_ = layout_.inner_step;
    } else if (layout_.block == 1) {
      step_ = layout_.axis_step;
    } else {  // pieces end where blocks do
      most_ = std::min(kLongest, layout_.block);
      while (layout_.block % most_ != 0) --most_;
    }
    per_row_ = ceil_divide(length_, most_);
  }

  std::int64_t pieces() const { return rows_ * per_row_; }
  std::int64_t piece_length() const { return std::min(length_, most_); }

  QuantizedRun piece(std::int64_t i) const {
    const std::int64_t row = i / per_row_, begin = i % per_row_ * most_;
    const std::int64_t scale = along_line_ ? layout_.at(row, begin, 0) : layout_.at(row / layout_.extent, row % layout_.extent, begin);
    return {row * length_ + begin, std::min(most_, length_ - begin), scale, step_};
  }

 private:
  ScaleLayout layout_;
  bool along_line_ = false;
  std::int64_t rows_ = 0, length_ = 0, step_ = 0, most_ = kLongest, per_row_ = 0;
};

}  // namespace tandem
