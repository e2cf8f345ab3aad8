#include <algorithm>

#include "core/check.h"
#include "ops/layout/slice.h"
#include "ops/layout/strided.h"
#include "ops/ops.h"
#include "ops/shape_rules.h"

namespace tandem {
namespace {

// Rows added before and after dimension d.
const Dim& before(const OpCall& call, int d) { return call.attributes.dims("pads")[static_cast<std::size_t>(d)]; }
const Dim& after(const OpCall& call, int d) { return call.attributes.dims("pads")[static_cast<std::size_t>(d + call.operand(0).rank())]; }

std::vector<Type> infer(const OpCall& call) {
  Type to = call.operand(0);
  const auto& pads = call.attributes.dims("pads");
  if (pads.size() != 2 * to.dims.size())
    fail(ErrorCode::invalid_model, "{} pads for rank {}, expected {}", pads.size(), to.rank(), 2 * to.rank());
  for (const Dim& p : pads)
    if (p.is_constant() && p.constant() < 0) fail(ErrorCode::invalid_model, "pads {} are negative", to_string(pads));
  for (int d = 0; d < to.rank(); ++d)
    to.dims[static_cast<std::size_t>(d)] = to.dims[static_cast<std::size_t>(d)] + before(call, d) + after(call, d);
  return {to};
}

ShardingRule rule(const OpCall& call) {
  ShardingRule rule;
  rule.operands.resize(1);
  rule.results.resize(1);
  for (int d = 0; d < call.operand(0).rank(); ++d) {
    const Dim &from = call.operand(0).dims[static_cast<std::size_t>(d)], &to = call.results.at(0).dims[static_cast<std::size_t>(d)];
    const bool padded = before(call, d) != Dim(0) || after(call, d) != Dim(0);
    const int factor = rule.add(from, padded ? ShardingRule::Role::whole : ShardingRule::Role::parallel);
    rule.operands[0].push_back({factor});
    rule.results[0].push_back({padded ? rule.add(to, ShardingRule::Role::whole) : factor});
  }
  return rule;
}

// Where each row of one dimension of the result comes from; -1: the padding value.
Shape source_rows(std::int64_t extent, std::int64_t begin, std::int64_t end, std::string_view mode) {
  if (mode == "reflect" && (begin >= std::max<std::int64_t>(extent, 1) || end >= std::max<std::int64_t>(extent, 1)))
    fail(ErrorCode::invalid_argument, "reflecting {} and {} rows needs more than {}", begin, end, extent);
  if (mode == "edge" && extent == 0 && begin + end > 0) fail(ErrorCode::invalid_argument, "there is no edge to repeat");
  Shape rows;
  for (std::int64_t i = -begin; i < extent + end; ++i) {
    if (mode == "constant") rows.push_back(i < 0 || i >= extent ? -1 : i);
    else if (mode == "edge") rows.push_back(std::clamp<std::int64_t>(i, 0, extent - 1));
    else rows.push_back(i < 0 ? -i : i >= extent ? 2 * (extent - 1) - i : i);
  }
  return rows;
}

std::vector<Tensor> evaluate(const OpCall& call, std::span<const Tensor> x) {
  const Shape& from = x[0].shape();
  const Shape strides = row_major_strides(from);
  std::vector<Shape> rows;
  for (int d = 0; d < call.operand(0).rank(); ++d)
    rows.push_back(source_rows(from[static_cast<std::size_t>(d)], before(call, d).constant(), after(call, d).constant(),
                               call.attributes.text("mode")));
  Tensor out(x[0].dtype(), shape_of(call.results.at(0)));
  const Shape to = row_major_strides(out.shape());
  std::byte* target = out.mutable_data();
  for (std::int64_t i = 0; i < out.count(); ++i) {
    std::int64_t source = 0;
    bool inside = true;
    for (std::size_t d = 0; d < from.size(); ++d) {
      const std::int64_t row = rows[d][static_cast<std::size_t>(i / to[d] % out.shape()[d])];
      inside = inside && row >= 0;
      source += row * strides[d];
    }
    if (inside) copy_element(out.dtype(), x[0].data(), source, target, i);
    else store_element(out.dtype(), target, i, call.attributes.real("value"));
  }
  return {out};
}

double padding_value(const ForeignNode& node, GraphBuilder& b) {
  Value* given = node.input(2);
  if (!given) return node.real("value", 0);
  const auto value = b.constant_of(given);
  if (!value || value->count() != 1) fail(ErrorCode::unsupported, "constant_value must be a constant of one element");
  return value->at(0);
}

std::vector<Value*> import(const ForeignNode& node, GraphBuilder& b) {
  Value* x = node.required(0);
  const auto rank = static_cast<std::size_t>(x->type.rank());
  const auto listed = node.integers("pads", {});
  const DimContent given = node.input(1) ? b.require_dims(node.input(1), "pads") : DimContent(listed.begin(), listed.end());
  std::vector<std::int64_t> axes(rank);
  for (std::size_t i = 0; i < rank; ++i) axes[i] = static_cast<std::int64_t>(i);
  if (node.input(3)) axes = b.require_ints(node.input(3), "axes");
  if (given.size() != 2 * axes.size())
    fail(ErrorCode::invalid_model, "{} pads for {} axes, expected {}", given.size(), axes.size(), 2 * axes.size());
  std::vector<Dim> pads(2 * rank);
  for (std::size_t i = 0; i < axes.size(); ++i) {
    const int axis = normalize_axis(axes[i], x->type.rank());
    const auto at = static_cast<std::size_t>(axis);
    Dim cut_front = 0, cut_back = 0;
    pads[at] = given[i];
    pads[at + rank] = given[i + axes.size()];
    if (surely_at_most(b, pads[at], 0)) std::swap(cut_front, pads[at]);
    if (surely_at_most(b, pads[at + rank], 0)) std::swap(cut_back, pads[at + rank]);
    x = slice_axis(b, x, axis, Dim(0) - cut_front, x->type.dims[at] + cut_back);
  }
  const std::string mode = node.text("mode", "constant");
  if (mode != "constant" && mode != "reflect" && mode != "edge") fail(ErrorCode::unsupported, "padding mode '{}' is not supported", mode);
  if (std::ranges::all_of(pads, [](const Dim& p) { return p == Dim(0); })) return {x};
  return {b.add("Pad", {x}, {{"pads", pads}, {"mode", mode}, {"value", padding_value(node, b)}})};
}

}  // namespace

const OpDef ops::Pad = {
    .name = "Pad",
    .doc = "Adds rows before and after each dimension: a value, the mirrored rows or the repeated edge.",
    .fields = {{.name = "pads",
                .kind = FieldKind::dims,
                .initial = std::vector<Dim>{},
                .doc = "rows before each dimension, then rows after each"},
               {.name = "mode",
                .kind = FieldKind::text,
                .initial = std::string("constant"),
                .words = {"constant", "reflect", "edge"},
                .doc = "what is added"},
               {.name = "value", .kind = FieldKind::real, .initial = 0.0, .doc = "of constant"}},
    .operands = {{"x"}},
    .min_operands = 1,
    .max_operands = 1,
    .infer = infer,
    .rule = rule,
    .evaluate = evaluate,
    .onnx = {{.op_type = "Pad", .since = 2, .import = import}},
};

}  // namespace tandem
