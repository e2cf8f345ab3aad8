#include "ops/conv/window.h"

#include <algorithm>
#include <limits>

#include "core/check.h"
#include "core/numeric.h"
#include "ops/layout/strided.h"
#include "ops/shape_rules.h"

namespace tandem::window {
namespace {

std::int64_t at_or(const std::vector<std::int64_t>& values, std::size_t i, std::int64_t otherwise) {
  return values.empty() ? otherwise : values.at(i);
}
Dim at_or(const std::vector<Dim>& values, std::size_t i) { return values.empty() ? Dim(0) : values.at(i); }

// Rows from the first to the last tap.
std::int64_t reach(std::int64_t kernel, std::int64_t dilation) { return checked_add(checked_multiply(kernel - 1, dilation), 1); }

void require_positive(const std::vector<std::int64_t>& values, std::size_t spatial, const char* what) {
  if (!values.empty() && values.size() != spatial)
    fail(ErrorCode::invalid_model, "{} {} for {} spatial dimensions", values.size(), what, spatial);
  for (const std::int64_t v : values)
    if (v < 1 || v > (std::int64_t{1} << 31)) fail(ErrorCode::invalid_model, "{} {} are not positive", what, values);
}

}  // namespace

Axis::Taps Axis::taps(std::int64_t o) const {
  const std::int64_t start = row(o, 0);
  const std::int64_t first = start >= 0 ? 0 : ceil_divide(-start, dilation);
  const std::int64_t last = start >= in ? 0 : std::min(kernel, ceil_divide(in - start, dilation));
  return {first, std::max(first, last)};
}

std::vector<Field> fields() {
  const std::vector<std::int64_t> none;
  return {{"strides", FieldKind::integers, none, {}, "rows from one window to the next, per spatial dimension; empty: 1"},
          {"dilations", FieldKind::integers, none, {}, "rows from one tap to the next; empty: 1"},
          {"pads", FieldKind::dims, std::vector<Dim>{}, {}, "rows of padding before each spatial dimension, then after each; empty: none"}};
}

Field layout_field() {
  return {"layout",
          FieldKind::text,
          std::string("channels_first"),
          {"channels_first", "channels_last"},
          "which dimension of images has their channels: 1 or the last"};
}

bool is_channels_last(const Attributes& attributes) { return attributes.text("layout") == "channels_last"; }

OpCall channels_first(const OpCall& call, std::initializer_list<std::size_t> operands) {
  if (!is_channels_last(call.attributes)) return call;
  OpCall first = call;
  first.attributes.set("layout", std::string("channels_first"));
  for (const std::size_t i : operands)
    if (call.has_operand(i)) first.operands[i]->dims = channels_first(call.operand(i).dims);
  for (Type& result : first.results) result.dims = channels_first(result.dims);
  return first;
}

Tensor channels_first(const Tensor& last) {
  return take_strided(last, channels_first(last.shape()), channels_first(row_major_strides(last.shape())));
}

Tensor channels_last(const Tensor& first) {
  return take_strided(first, channels_last(first.shape()), channels_last(row_major_strides(first.shape())));
}

std::vector<Dim> result_extents(const OpCall& call, const std::vector<std::int64_t>& kernel, bool up) {
  const Type& x = require_rank(call, 0, 3, 2 + kMaxSpatial);
  const std::size_t spatial = x.dims.size() - 2;
  const auto &strides = call.attributes.integers("strides"), &dilations = call.attributes.integers("dilations");
  const auto& pads = call.attributes.dims("pads");
  if (kernel.size() != spatial) fail(ErrorCode::invalid_model, "a window of {} for {} spatial dimensions", kernel, spatial);
  require_positive(kernel, spatial, "window extents");
  require_positive(strides, spatial, "strides");
  require_positive(dilations, spatial, "dilations");
  if (!pads.empty() && pads.size() != 2 * spatial)
    fail(ErrorCode::invalid_model, "{} pads for {} spatial dimensions", pads.size(), spatial);
  for (const Dim& p : pads)
    if (p.is_constant() && p.constant() < 0) fail(ErrorCode::invalid_model, "pads {} are negative", to_string(pads));
  std::vector<Dim> extents;
  for (std::size_t i = 0; i < spatial; ++i) {
    const Dim padded = x.dims[i + 2] + at_or(pads, i) + at_or(pads, i + spatial), stride = at_or(strides, i, 1);
    const Dim room = padded - Dim(reach(kernel[i], at_or(dilations, i, 1)));
    if (room.is_constant() && room.constant() < 0)
      fail(ErrorCode::invalid_model, "a window of {} rows does not fit into {} with padding", reach(kernel[i], at_or(dilations, i, 1)),
           padded.to_string());
    Dim extent = (up ? ceil_div(room, stride) : floor_div(room, stride)) + Dim(1);
    if (up) extent = min(extent, ceil_div(x.dims[i + 2] + at_or(pads, i), stride));
    extents.push_back(extent.bounds({}).min >= 0 ? extent : max(extent, Dim(0)));
  }
  return extents;
}

Axes axes_of(const OpCall& call, const std::vector<std::int64_t>& kernel) {
  const std::size_t spatial = kernel.size();
  const auto &strides = call.attributes.integers("strides"), &dilations = call.attributes.integers("dilations");
  const auto& pads = call.attributes.dims("pads");
  const Shape x = shape_of(call.operand(0)), y = shape_of(call.results.at(0));
  Axes axes;
  for (std::size_t i = 0; i < spatial; ++i)
    axes[i + kMaxSpatial - spatial] = {.in = x[i + 2],
                                       .out = y[i + 2],
                                       .kernel = kernel[i],
                                       .stride = at_or(strides, i, 1),
                                       .dilation = at_or(dilations, i, 1),
                                       .before = at_or(pads, i).constant(),
                                       .after = at_or(pads, i + spatial).constant()};
  return axes;
}

int small(std::int64_t number) {
  if (number < 0 || number > std::numeric_limits<int>::max())
    fail(ErrorCode::unsupported, "an extent of {} is more than this kernel counts", number);
  return static_cast<int>(number);
}

const Axis& small(const Axis& axis) {
  small(axis.in + axis.before + axis.after + axis.stride);
  small(axis.out * axis.stride);
  small(axis.kernel * axis.dilation);
  return axis;
}

NamedAttributes import(const ForeignNode& node, const Type& x, const std::vector<std::int64_t>& kernel) {
  if (x.rank() < 3 || x.rank() > 2 + kMaxSpatial)
    fail(ErrorCode::unsupported, "{} has {} spatial dimensions, expected 1 to {}", x.to_string(), x.rank() - 2, kMaxSpatial);
  const std::size_t spatial = x.dims.size() - 2;
  const auto strides = node.integers("strides", std::vector<std::int64_t>(spatial, 1));
  const auto dilations = node.integers("dilations", std::vector<std::int64_t>(spatial, 1));
  require_positive(kernel, spatial, "window extents");
  require_positive(strides, spatial, "strides");
  require_positive(dilations, spatial, "dilations");
  const auto listed = node.integers("pads", std::vector<std::int64_t>(2 * spatial, 0));
  std::vector<Dim> pads(listed.begin(), listed.end());
  const std::string automatic = node.text("auto_pad", "NOTSET");
  if (automatic == "VALID") pads.assign(2 * spatial, Dim(0));
  if (automatic == "SAME_UPPER" || automatic == "SAME_LOWER") {
    pads.assign(2 * spatial, Dim(0));
    for (std::size_t i = 0; i < spatial; ++i) {
      const Dim in = x.dims[i + 2], taken = (ceil_div(in, strides[i]) - Dim(1)) * Dim(strides[i]) + Dim(reach(kernel[i], dilations[i]));
      const Dim total = max(taken - in, Dim(0)), half = floor_div(total, 2);
      pads[i] = automatic == "SAME_UPPER" ? half : total - half;
      pads[i + spatial] = total - pads[i];
    }
  } else if (automatic != "VALID" && automatic != "NOTSET" && !automatic.empty()) {
    fail(ErrorCode::invalid_model, "auto_pad '{}' is none of NOTSET, SAME_UPPER, SAME_LOWER, VALID", automatic);
  }
  return {{"strides", strides}, {"dilations", dilations}, {"pads", pads}};
}

}  // namespace tandem::window
