#include "ops/layout/views.h"

#include <algorithm>

#include "core/check.h"
#include "ops/shape_rules.h"

namespace tandem {

OperandView transpose_view(const OpCall& call) {
  const Shape from = row_major_strides(shape_of(call.operand(0)));
  OperandView view;
  for (const std::int64_t d : call.attributes.integers("permutation"))
    view.strides.push_back(from[static_cast<std::size_t>(normalize_axis(d, static_cast<int>(from.size())))]);
  return view;
}

OperandView slice_view(const OpCall& call) {
  OperandView view{row_major_strides(shape_of(call.operand(0)))};
  const auto& axes = call.attributes.integers("axes");
  const auto& steps = call.attributes.integers("steps");
  for (std::size_t i = 0; i < axes.size(); ++i) {
    std::int64_t& stride = view.strides[static_cast<std::size_t>(normalize_axis(axes[i], call.operand(0).rank()))];
    view.offset += call.attributes.dims("starts")[i].constant() * stride;
    if (!steps.empty()) stride *= steps[i];
  }
  return view;
}

OperandView expand_view(const OpCall& call) { return {strides_over(shape_of(call.operand(0)), shape_of(call.results.at(0)))}; }

ShardRows shard_rows(const OpCall& call) {
  const int dim = normalize_axis(call.attributes.integer("dim"), call.operand(0).rank());
  const AxisView from(shape_of(call.operand(0)), dim), to(shape_of(call.results.at(0)), dim);
  const std::int64_t begin = call.attributes.dim("begin").constant();
  if (begin < 0) fail(ErrorCode::invalid_argument, "rows begin at {}", begin);
  return {from.outer, from.extent, from.inner, begin, to.extent, std::clamp<std::int64_t>(from.extent - begin, 0, to.extent)};
}

}  // namespace tandem
