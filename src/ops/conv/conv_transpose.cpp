// ONNX's ConvTranspose as a Conv: with stride s, element q·s + r of the result is a sum over taps j·s + r of the window, so the s phases r
// are s results of one convolution of stride 1 with every s-th tap, in turn. What lies between the rows of x is never multiplied.
#include "ops/conv/conv_transpose.h"

#include <algorithm>

#include "core/check.h"
#include "core/numeric.h"
#include "ops/layout/slice.h"
#include "ops/pointwise/define.h"

namespace tandem::conv {
namespace {

// One spatial dimension. The whole result would have rows 0 … (in − 1)·stride + reach − 1; `rows` of them from `begin` on are wanted, rows
// past the whole ones are zero.
struct Axis {
  Dim in;
  std::int64_t kernel = 1, stride = 1, dilation = 1;
  Dim begin, rows;
  std::int64_t reach() const { return checked_add(checked_multiply(kernel - 1, dilation), 1); }
  // Taps of a phase.
  std::int64_t phase_taps() const { return ceil_divide(reach(), stride); }
};

std::int64_t number(const Dim& extent, const char* what) {
  if (!extent.is_constant()) fail(ErrorCode::unsupported, "the {} are {}, expected a number", what, extent.to_string());
  return extent.constant();
}

std::vector<std::int64_t> listed(const ForeignNode& node, const char* name, std::size_t count, std::int64_t otherwise, std::int64_t least) {
  const auto values = node.integers(name, std::vector<std::int64_t>(count, otherwise));
  if (values.size() != count) fail(ErrorCode::invalid_model, "{} {} for {}", values.size(), name, count);
  if (std::ranges::any_of(values, [&](std::int64_t v) { return v < least || v > (std::int64_t{1} << 31); }))
    fail(ErrorCode::invalid_model, "{} {} are not {} or more", name, values, least);
  return values;
}

std::vector<Axis> axes_of(const ForeignNode& node, const Type& x, const Type& w) {
  const std::size_t spatial = x.dims.size() - 2;
  const auto strides = listed(node, "strides", spatial, 1, 1), dilations = listed(node, "dilations", spatial, 1, 1);
  const auto past = listed(node, "output_padding", spatial, 0, 0), pads = listed(node, "pads", 2 * spatial, 0, 0);
  const std::string automatic = node.text("auto_pad", "NOTSET");
  const bool same = automatic == "SAME_UPPER" || automatic == "SAME_LOWER";
  if (!same && automatic != "NOTSET" && automatic != "VALID" && !automatic.empty())
    fail(ErrorCode::invalid_model, "auto_pad '{}' is none of NOTSET, SAME_UPPER, SAME_LOWER, VALID", automatic);
  std::vector<Axis> axes;
  for (std::size_t i = 0; i < spatial; ++i) {
    Axis a{.in = x.dims[i + 2],
           .kernel = number(w.dims[i + 2], "extents of the window"),
           .stride = strides[i],
           .dilation = dilations[i],
           .begin = 0,
           .rows = 0};
    if (a.kernel < 1) fail(ErrorCode::invalid_model, "a window of {} rows", a.kernel);
    const Dim whole = (a.in - Dim(1)) * Dim(a.stride) + Dim(a.reach() + past[i]);
    if (same || node.has("output_shape")) {
      a.rows = node.has("output_shape") ? Dim(listed(node, "output_shape", spatial, 0, 0)[i]) : a.in * Dim(a.stride);
      const Dim total = max(whole - a.rows, Dim(0));
      a.begin = automatic == "SAME_UPPER" ? floor_div(total, 2) : total - floor_div(total, 2);
    } else if (automatic == "VALID") {
      a.rows = whole;
    } else {
      a.begin = pads[i];
      a.rows = whole - Dim(pads[i] + pads[i + spatial]);
    }
    if (a.rows.is_constant() && a.rows.constant() < 0) fail(ErrorCode::invalid_model, "the result would have {} rows", a.rows.to_string());
    axes.push_back(std::move(a));
  }
  return axes;
}

Value* padded(GraphBuilder& b, Value* x, std::size_t axis, const Dim& extent) {
  if (x->type.dims[axis] == extent) return x;
  std::vector<Dim> pads(2 * x->type.dims.size(), Dim(0));
  pads[axis + x->type.dims.size()] = extent - x->type.dims[axis];
  return b.add("Pad", {x}, {{"pads", pads}});
}

Value* reshaped(GraphBuilder& b, Value* x, std::vector<Dim> dims) {
  return x->type.dims == dims ? x : b.add("Reshape", {x}, {{"shape", std::move(dims)}});
}

// Dimension `d` of the window, kernel taps, becomes phase_taps blocks of a tap for each phase, the last block first.
Value* by_phases(GraphBuilder& b, Value* w, std::size_t d, const Axis& a) {
  std::vector<Dim> apart = w->type.dims, closed = apart;
  apart.insert(apart.begin() + static_cast<std::ptrdiff_t>(d) + 1, Dim(1));
  closed[d] = checked_multiply(a.kernel, a.dilation);
  if (a.dilation > 1) w = reshaped(b, padded(b, reshaped(b, w, apart), d + 1, a.dilation), closed);
  const std::int64_t wanted = a.phase_taps() * a.stride;
  w = closed[d].constant() < wanted ? padded(b, w, d, wanted) : slice_axis(b, w, static_cast<int>(d), 0, wanted);
  if (a.phase_taps() == 1) return w;
  std::vector<Value*> blocks;
  for (std::int64_t j = a.phase_taps() - 1; j >= 0; --j)
    blocks.push_back(slice_axis(b, w, static_cast<int>(d), j * a.stride, (j + 1) * a.stride));
  return b.add("Concat", blocks, {{"axis", static_cast<std::int64_t>(d)}});
}

// [c, m/groups, taps…] to [m · phases, c/groups, taps of a phase…].
Value* weight_of(GraphBuilder& b, Value* w, std::int64_t groups, const std::vector<Axis>& axes) {
  const Dim in = floor_div(w->type.dims[0], groups), out = w->type.dims[1];
  for (std::size_t i = 0; i < axes.size(); ++i) w = by_phases(b, w, i + 2, axes[i]);
  std::vector<Dim> open = {groups, in, out}, closed = {out * Dim(groups), in};
  std::vector<std::int64_t> order = {0, 2}, taps;
  for (std::size_t i = 0; i < axes.size(); ++i) {
    open.insert(open.end(), {Dim(axes[i].phase_taps()), Dim(axes[i].stride)});
    taps.push_back(static_cast<std::int64_t>(3 + 2 * i));
    order.push_back(static_cast<std::int64_t>(4 + 2 * i));
    closed[0] = closed[0] * Dim(axes[i].stride);
    closed.emplace_back(axes[i].phase_taps());
  }
  order.push_back(1);
  order.insert(order.end(), taps.begin(), taps.end());
  return reshaped(b, b.add("Transpose", {reshaped(b, w, open)}, {{"permutation", order}}), closed);
}

// [n, m · phases, rows…] to [n, m, rows · stride…].
Value* interleave(GraphBuilder& b, Value* y, const std::vector<Axis>& axes) {
  Dim phases = 1;
  for (const Axis& a : axes) phases = phases * Dim(a.stride);
  if (phases == Dim(1)) return y;
  std::vector<Dim> open = {y->type.dims[0], floor_div(y->type.dims[1], phases)}, closed = open;
  std::vector<std::int64_t> order = {0, 1};
  const auto count = static_cast<std::int64_t>(axes.size());
  for (const Axis& a : axes) open.emplace_back(a.stride);
  for (std::int64_t i = 0; i < count; ++i) {
    const Dim rows = y->type.dims[static_cast<std::size_t>(i) + 2];
    open.push_back(rows);
    order.insert(order.end(), {2 + count + i, 2 + i});
    closed.push_back(rows * Dim(axes[static_cast<std::size_t>(i)].stride));
  }
  return reshaped(b, b.add("Transpose", {reshaped(b, y, open)}, {{"permutation", order}}), closed);
}

}  // namespace

std::vector<Value*> import_transpose(const ForeignNode& node, GraphBuilder& b) {
  Value *x = node.required(0), *w = node.required(1), *bias = node.input(2);
  const std::int64_t groups = node.integer("group", 1);
  if (w->type.rank() != x->type.rank() || x->type.rank() < 3 || x->type.rank() > 2 + window::kMaxSpatial)
    fail(ErrorCode::invalid_model, "x is {} and the weight {}, expected the same rank of 3 to {}", x->type.to_string(), w->type.to_string(),
         2 + window::kMaxSpatial);
  if (groups < 1 || number(w->type.dims[0], "channels of the weight") % groups != 0)
    fail(ErrorCode::invalid_model, "{} groups of {} channels", groups, w->type.dims[0].to_string());
  b.require_equal(x->type.dims[1], w->type.dims[0]);
  const std::vector<Axis> axes = axes_of(node, x->type, w->type);
  // Padding before and after, and where the rows that are wanted begin in what comes out.
  std::vector<Dim> pads(2 * axes.size()), begins;
  for (std::size_t i = 0; i < axes.size(); ++i) {
    const Axis& a = axes[i];
    const Dim before = Dim(a.phase_taps() - 1), skipped = min(floor_div(a.begin, a.stride), before);
    pads[i] = before - skipped;
    pads[i + axes.size()] = max(ceil_div(a.begin + a.rows, a.stride) - a.in, Dim(0));
    begins.push_back(a.begin - skipped * Dim(a.stride));
  }
  Value* y = interleave(b, b.add("Conv", {x, weight_of(b, w, groups, axes)}, {{"pads", pads}}), axes);
  for (std::size_t i = 0; i < axes.size(); ++i)
    if (begins[i] != Dim(0) || y->type.dims[i + 2] != axes[i].rows)
      y = slice_axis(b, y, static_cast<int>(i) + 2, begins[i], begins[i] + axes[i].rows);
  if (!bias) return {y};
  std::vector<Dim> dims(axes.size() + 1, Dim(1));
  dims[0] = y->type.dims[1];
  return {pointwise::add_broadcast(b, "Add", y, b.add("Reshape", {bias}, {{"shape", dims}}))};
}

}  // namespace tandem::conv
