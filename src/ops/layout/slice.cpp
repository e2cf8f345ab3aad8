#include "ops/layout/slice.h"

#include <algorithm>

#include "core/check.h"
#include "ops/layout/strided.h"
#include "ops/ops.h"
#include "ops/shape_rules.h"

namespace tandem {
namespace {

// One sliced axis of a call.
struct Cut {
  int axis;
  Dim start, end;
  std::int64_t step;
  Dim length() const { return step > 0 ? ceil_div(end - start, step) : ceil_div(start - end, -step); }
};

std::vector<Cut> cuts_of(const OpCall& call) {
  const auto& axes = call.attributes.integers("axes");
  const auto& starts = call.attributes.dims("starts");
  const auto& ends = call.attributes.dims("ends");
  std::vector<std::int64_t> steps = call.attributes.integers("steps");
  if (steps.empty()) steps.resize(axes.size(), 1);
  if (starts.size() != axes.size() || ends.size() != axes.size() || steps.size() != axes.size())
    fail(ErrorCode::invalid_model, "starts, ends, axes and steps differ in length");
  std::vector<Cut> cuts;
  for (std::size_t i = 0; i < axes.size(); ++i) {
    const int axis = normalize_axis(axes[i], call.operand(0).rank());
    if (steps[i] == 0) fail(ErrorCode::invalid_model, "axis {} has step 0", axis);
    if (std::ranges::any_of(cuts, [&](const Cut& c) { return c.axis == axis; }))
      fail(ErrorCode::invalid_model, "axis {} is sliced twice", axis);
    cuts.push_back({axis, starts[i], ends[i], steps[i]});
  }
  return cuts;
}

// Refuses bounds that are numbers and lie outside the extent.
void check_inside(const Cut& cut, const Dim& extent) {
  if (!extent.is_constant() || !cut.start.is_constant() || !cut.end.is_constant()) return;
  const std::int64_t start = cut.start.constant(), end = cut.end.constant(), size = extent.constant();
  const bool inside =
      cut.step > 0 ? 0 <= start && start <= end && end <= size : -1 <= end && end <= start && start < std::max<std::int64_t>(size, 1);
  if (!inside || (cut.step < 0 && size == 0 && start != end))
    fail(ErrorCode::invalid_model, "slice {}:{}:{} does not lie inside extent {} of axis {}", start, end, cut.step, size, cut.axis);
}

std::vector<Type> infer(const OpCall& call) {
  Type to = call.operand(0);
  for (const Cut& cut : cuts_of(call)) {
    Dim& extent = to.dims[static_cast<std::size_t>(cut.axis)];
    check_inside(cut, extent);
    extent = cut.length();
  }
  return {to};
}

ShardingRule rule(const OpCall& call) {
  ShardingRule rule;
  rule.operands.resize(1);
  rule.results.resize(1);
  const auto& cut = call.attributes.integers("axes");
  for (int d = 0; d < call.operand(0).rank(); ++d) {
    const auto touched = [&](std::int64_t axis) { return normalize_axis(axis, call.operand(0).rank()) == d; };
    const Dim &from = call.operand(0).dims[static_cast<std::size_t>(d)], &to = call.results.at(0).dims[static_cast<std::size_t>(d)];
    if (std::ranges::none_of(cut, touched)) {
      const int factor = rule.add(from);
      rule.operands[0].push_back({factor});
      rule.results[0].push_back({factor});
    } else {
      rule.operands[0].push_back({rule.add(from, ShardingRule::Role::whole)});
      rule.results[0].push_back({rule.add(to, ShardingRule::Role::whole)});
    }
  }
  return rule;
}

// Offset and strides of a slice whose bounds are numbers.
std::int64_t apply(const std::vector<Cut>& cuts, const Shape& shape, Shape& strides) {
  std::int64_t offset = 0;
  for (const Cut& cut : cuts) {
    const auto axis = static_cast<std::size_t>(cut.axis);
    check_inside(cut, shape[axis]);
    offset += cut.start.constant() * strides[axis];
    strides[axis] *= cut.step;
  }
  return offset;
}

std::vector<Tensor> evaluate(const OpCall& call, std::span<const Tensor> x) {
  Shape strides = row_major_strides(x[0].shape());
  const std::int64_t offset = apply(cuts_of(call), x[0].shape(), strides);
  return {take_strided(x[0], shape_of(call.results.at(0)), strides, offset)};
}

std::optional<DimContent> fold(const OpCall& call, std::span<const std::optional<DimContent>> x) {
  const auto shape = content_shape(call.operand(0).dims);
  const std::vector<Cut> cuts = cuts_of(call);
  if (!x[0] || !shape || std::ranges::any_of(cuts, [](const Cut& c) { return !c.start.is_constant(); })) return std::nullopt;
  Shape strides = row_major_strides(*shape);
  const std::int64_t offset = apply(cuts, *shape, strides);
  return take_strided(*x[0], call.results.at(0).dims, strides, offset);
}

// An index as ONNX writes it, counted from the front: what is negative counts from the end.
Dim from_front(GraphBuilder& b, const Dim& given, const Dim& extent, std::string_view what) {
  constexpr std::int64_t kFar = std::int64_t{1} << 50;
  if (const auto value = given.value()) {
    const std::int64_t near = std::clamp(*value, -kFar, kFar);
    return near < 0 ? extent + Dim(near) : Dim(near);
  }
  if (surely_at_most(b, given, -1)) return extent + given;
  if (!surely_at_most(b, 0, given)) {
    // Either sign is possible: the counting would depend on it. Exporters write such bounds as positions.
    const Dim positive = max(given, 0);
    if (!may_be_equal(positive, given)) fail(ErrorCode::unsupported, "{} {} may be negative or not", what, given.to_string());
    b.require_equal(positive, given);
  }
  return given;
}

// Upper bound of an index: a symbolic position in a constant extent (rows of a table) is taken to lie inside it, which is
// checked when shapes are bound; cutting it off there would leave an extent nothing else agrees with.
Dim clamp_above(GraphBuilder& b, const Dim& at, const Dim& limit, bool assume) {
  if (assume && limit.is_constant() && !at.is_constant() && !surely_at_most(b, at, limit) && !surely_at_most(b, limit + Dim(1), at)) {
    b.require_equal(min(at, limit), at);
    return at;
  }
  return min_in(b, at, limit);
}

Cut normalized(GraphBuilder& b, int axis, const Dim& start, const Dim& end, std::int64_t step, const Dim& extent) {
  if (step == 0) fail(ErrorCode::invalid_model, "axis {} has step 0", axis);
  const Dim first = from_front(b, start, extent, "start"), last = from_front(b, end, extent, "end");
  if (step > 0) {
    const Dim from = max_in(b, clamp_above(b, first, extent, false), 0);
    const Dim to = max_in(b, clamp_above(b, last, extent, !end.is_constant()), 0);
    return {axis, from, max_in(b, from, to), step};
  }
  const Dim top = extent - Dim(1);
  const Dim from = max_in(b, min_in(b, first, top), -1), to = max_in(b, min_in(b, last, top), -1);
  return {axis, from, min_in(b, from, to), step};
}

Value* slice(GraphBuilder& b, Value* x, const std::vector<Cut>& cuts) {
  std::vector<Dim> starts, ends;
  std::vector<std::int64_t> axes, steps;
  for (const Cut& cut : cuts) {
    if (cut.step == 1 && cut.start == Dim(0) && cut.end == x->type.dims[static_cast<std::size_t>(cut.axis)]) continue;
    starts.push_back(cut.start);
    ends.push_back(cut.end);
    axes.push_back(cut.axis);
    steps.push_back(cut.step);
  }
  if (axes.empty()) return x;
  return b.add("Slice", {x}, {{"starts", starts}, {"ends", ends}, {"axes", axes}, {"steps", steps}});
}

std::vector<Value*> import_slice(const ForeignNode& node, GraphBuilder& b) {
  Value* x = node.required(0);
  const auto listed = [&](std::size_t input, const std::string& attribute) -> std::optional<DimContent> {
    if (Value* v = node.input(input)) return b.require_dims(v, attribute);
    if (!node.has(attribute)) return std::nullopt;
    const auto values = node.integers(attribute, {});
    return DimContent(values.begin(), values.end());
  };
  const auto starts = listed(1, "starts"), ends = listed(2, "ends"), axes = listed(3, "axes"), steps = listed(4, "steps");
  if (!starts || !ends || starts->size() != ends->size() || (axes && axes->size() != starts->size()) ||
      (steps && steps->size() != starts->size()))
    fail(ErrorCode::invalid_model, "starts, ends, axes and steps are missing or differ in length");
  std::vector<Cut> cuts;
  for (std::size_t i = 0; i < starts->size(); ++i) {
    const Dim given_axis = axes ? (*axes)[i] : Dim(static_cast<std::int64_t>(i)), step = steps ? (*steps)[i] : Dim(1);
    if (!given_axis.is_constant() || !step.is_constant()) fail(ErrorCode::unsupported, "axes and steps must be constant");
    const int axis = normalize_axis(given_axis.constant(), x->type.rank());
    cuts.push_back(normalized(b, axis, (*starts)[i], (*ends)[i], step.constant(), x->type.dims[static_cast<std::size_t>(axis)]));
  }
  return {slice(b, x, cuts)};
}

std::vector<Value*> import_split(const ForeignNode& node, GraphBuilder& b) {
  Value* x = node.required(0);
  const int axis = normalize_axis(node.integer("axis", 0), x->type.rank());
  const Dim& extent = x->type.dims[static_cast<std::size_t>(axis)];
  const auto count = static_cast<std::int64_t>(node.outputs.size());
  std::vector<Dim> ends;
  if (node.input(1) || node.has("split")) {
    const auto listed = node.integers("split", {});
    const DimContent sizes = node.input(1) ? b.require_dims(node.input(1), "split") : DimContent(listed.begin(), listed.end());
    Dim end = 0;
    for (const Dim& size : sizes) ends.push_back(end = end + size);
    if (static_cast<std::int64_t>(ends.size()) != count) fail(ErrorCode::invalid_model, "{} sizes for {} outputs", ends.size(), count);
    b.require_equal(end, extent);
    if (!ends.empty()) ends.back() = extent;
  } else {
    if (node.integer("num_outputs", count) != count)
      fail(ErrorCode::invalid_model, "num_outputs is {}, but there are {} outputs", node.integer("num_outputs", count), count);
    const Dim chunk = ceil_div(extent, count);
    for (std::int64_t i = 1; i <= count; ++i) ends.push_back(i == count ? extent : min_in(b, chunk * Dim(i), extent));
  }
  std::vector<Value*> parts;
  Dim start = 0;
  for (const Dim& end : ends) {
    parts.push_back(slice_axis(b, x, axis, start, end));
    start = end;
  }
  return parts;
}

}  // namespace

Value* slice_axis(GraphBuilder& b, Value* x, int axis, const Dim& start, const Dim& end) { return slice(b, x, {{axis, start, end, 1}}); }

const OpDef ops::Slice = {
    .name = "Slice",
    .doc =
        "Elements start, start+step, … before end along each listed axis; bounds lie inside the extent, an end of -1 is before the first "
        "element.",
    .fields = {{.name = "starts", .kind = FieldKind::dims, .initial = std::vector<Dim>{}, .doc = "the first index along each listed axis"},
               {.name = "ends", .kind = FieldKind::dims, .initial = std::vector<Dim>{}, .doc = "the index after the last"},
               {.name = "axes", .kind = FieldKind::integers, .initial = std::vector<std::int64_t>{}, .doc = "the dimensions that are cut"},
               {.name = "steps", .kind = FieldKind::integers, .initial = std::vector<std::int64_t>{}, .doc = "empty: all 1"}},
    .operands = {{"x"}},
    .min_operands = 1,
    .max_operands = 1,
    .infer = infer,
    .rule = rule,
    .evaluate = evaluate,
    .fold = fold,
    .onnx = {{.op_type = "Slice", .since = 1, .import = import_slice}, {.op_type = "Split", .since = 2, .import = import_split}},
};

}  // namespace tandem
