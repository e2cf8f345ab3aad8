#include "core/check.h"
#include "ops/layout/strided.h"
#include "ops/ops.h"
#include "ops/shape_rules.h"

namespace tandem {
namespace {

std::vector<Type> infer(const OpCall& call) {
  Type to = call.operand(0);
  same_dtype(call);
  const int axis = normalize_axis(call.attributes.integer("axis"), to.rank());
  for (std::size_t i = 1; i < call.operands.size(); ++i) {
    const Type& part = call.operand(i);
    if (part.rank() != to.rank()) fail(ErrorCode::invalid_model, "operand {} is {}, expected rank {}", i, part.to_string(), to.rank());
    for (int d = 0; d < to.rank(); ++d) {
      Dim& extent = to.dims[static_cast<std::size_t>(d)];
      const Dim& more = part.dims[static_cast<std::size_t>(d)];
      extent = d == axis ? extent + more : merge_equal(extent, more, fmt::format("dimension {} of the operands", d));
    }
  }
  return {to};
}

ShardingRule rule(const OpCall& call) {
  ShardingRule rule;
  const Type& to = call.results.at(0);
  const int axis = normalize_axis(call.attributes.integer("axis"), to.rank());
  std::vector<ShardingRule::DimFactors> shared;
  for (int d = 0; d < to.rank(); ++d)
    shared.push_back(
        {rule.add(to.dims[static_cast<std::size_t>(d)], d == axis ? ShardingRule::Role::whole : ShardingRule::Role::parallel)});
  rule.results.push_back(shared);
  for (std::size_t i = 0; i < call.operands.size(); ++i) {
    rule.operands.push_back(shared);
    const auto at = static_cast<std::size_t>(axis);
    rule.operands[i][at] = {rule.add(call.operand(i).dims[at], ShardingRule::Role::whole)};
  }
  return rule;
}

// Calls f(operand, source element, result element) for every element.
template <typename F>
void for_each_element(const std::vector<Shape>& parts, const Shape& to, int axis, F f) {
  const AxisView whole(to, axis);
  std::int64_t offset = 0;
  for (std::size_t p = 0; p < parts.size(); ++p) {
    const AxisView view(parts[p], axis);
    const std::int64_t run = view.extent * view.inner;
    for (std::int64_t o = 0; o < view.outer; ++o)
      for (std::int64_t i = 0; i < run; ++i) f(p, o * run + i, o * whole.extent * whole.inner + offset + i);
    offset += run;
  }
}

std::vector<Tensor> evaluate(const OpCall& call, std::span<const Tensor> x) {
  Tensor out(call.results.at(0).dtype, shape_of(call.results.at(0)));
  std::vector<Shape> parts;
  for (const Tensor& t : x) parts.push_back(t.shape());
  std::byte* to = out.mutable_data();
  for_each_element(parts, out.shape(), normalize_axis(call.attributes.integer("axis"), call.results[0].rank()),
                   [&](std::size_t p, std::int64_t from, std::int64_t at) { copy_element(out.dtype(), x[p].data(), from, to, at); });
  return {out};
}

std::optional<DimContent> fold(const OpCall& call, std::span<const std::optional<DimContent>> x) {
  const auto shape = content_shape(call.results.at(0).dims);
  if (!shape) return std::nullopt;
  std::vector<Shape> parts;
  for (std::size_t i = 0; i < x.size(); ++i) {
    const auto part = content_shape(call.operand(i).dims);
    if (!part || !x[i] || static_cast<std::int64_t>(x[i]->size()) != element_count(*part)) return std::nullopt;
    parts.push_back(*part);
  }
  DimContent out(static_cast<std::size_t>(element_count(*shape)));
  for_each_element(parts, *shape, normalize_axis(call.attributes.integer("axis"), call.results[0].rank()),
                   [&](std::size_t p, std::int64_t from, std::int64_t at) {
                     out[static_cast<std::size_t>(at)] = (*x[p])[static_cast<std::size_t>(from)];
                   });
  return out;
}

std::vector<Value*> import(const ForeignNode& node, GraphBuilder& b) {
  std::vector<Value*> parts;
  for (std::size_t i = 0; i < node.inputs.size(); ++i) parts.push_back(node.required(i));
  if (parts.empty()) fail(ErrorCode::invalid_model, "nothing to concatenate");
  const Type& first = parts[0]->type;
  const int axis = normalize_axis(node.integer("axis", 1), first.rank());
  for (const Value* part : parts)
    for (int d = 0; d < first.rank() && part->type.rank() == first.rank(); ++d)
      if (d != axis) b.require_equal(first.dims[static_cast<std::size_t>(d)], part->type.dims[static_cast<std::size_t>(d)]);
  if (parts.size() == 1) return {parts[0]};
  return {b.add("Concat", parts, {{"axis", std::int64_t{axis}}})};
}

}  // namespace

const OpDef ops::Concat = {
    .name = "Concat",
    .doc = "Joins operands of equal extents elsewhere along one axis.",
    .fields = {{.name = "axis",
                .kind = FieldKind::integer,
                .initial = std::int64_t{0},
                .doc = "the dimension that grows; negative: from the end"}},
    .operands = {{"parts"}},
    .min_operands = 1,
    .max_operands = -1,
    .infer = infer,
    .rule = rule,
    .evaluate = evaluate,
    .fold = fold,
    .onnx = {{.op_type = "Concat", .since = 4, .import = import}},
};

}  // namespace tandem
