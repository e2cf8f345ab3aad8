#include "core/check.h"
#include "ops/gather/index.h"
#include "ops/layout/strided.h"
#include "ops/ops.h"
#include "ops/shape_rules.h"

namespace tandem {

std::int64_t checked_index(std::int64_t index, std::int64_t extent) {
  const std::int64_t front = index < 0 ? index + extent : index;
  if (front < 0 || front >= extent) fail(ErrorCode::invalid_argument, "index {} is outside extent {}", index, extent);
  return front;
}

namespace {

int axis_of(const OpCall& call) { return normalize_axis(call.attributes.integer("axis"), call.operand(0).rank()); }

std::vector<Type> infer(const OpCall& call) {
  const Type &table = call.operand(0), &indices = call.operand(1);
  require_dtype(call, 1, is_index, "i32 or i64");
  const auto axis = table.dims.begin() + axis_of(call);
  Type to{table.dtype, {table.dims.begin(), axis}};
  to.dims.insert(to.dims.end(), indices.dims.begin(), indices.dims.end());
  to.dims.insert(to.dims.end(), axis + 1, table.dims.end());
  return {to};
}

ShardingRule rule(const OpCall& call) {
  ShardingRule rule;
  rule.operands.resize(2);
  const int axis = axis_of(call);
  for (int d = 0; d < call.operand(0).rank(); ++d)
    rule.operands[0].push_back(
        {rule.add(call.operand(0).dims[static_cast<std::size_t>(d)], d == axis ? ShardingRule::Role::whole : ShardingRule::Role::parallel)});
  for (const Dim& d : call.operand(1).dims) rule.operands[1].push_back({rule.add(d)});
  auto result = rule.operands[0];
  result.erase(result.begin() + axis);
  result.insert(result.begin() + axis, rule.operands[1].begin(), rule.operands[1].end());
  rule.results.push_back(std::move(result));
  return rule;
}

std::vector<Tensor> evaluate(const OpCall& call, std::span<const Tensor> x) {
  const AxisView view(x[0].shape(), axis_of(call));
  const std::int64_t base = call.attributes.dim("base").constant(), count = x[1].count();
  const bool bound = call.attributes.boolean("bound");
  Tensor out(x[0].dtype(), shape_of(call.results.at(0)));
  std::byte* to = out.mutable_data();
  for (std::int64_t n = 0; n < count; ++n) {
    std::int64_t row = x[1].int_at(n) - base;
    if (!bound) row = checked_index(row, view.extent);
    else if (row < 0 || row >= view.extent) continue;  // another rank's row: zeros
    for (std::int64_t o = 0; o < view.outer; ++o)
      for (std::int64_t i = 0; i < view.inner; ++i)
        copy_element(out.dtype(), x[0].data(), (o * view.extent + row) * view.inner + i, to, (o * count + n) * view.inner + i);
  }
  return {out};
}

std::optional<DimContent> fold(const OpCall& call, std::span<const std::optional<DimContent>> x) {
  const auto from = content_shape(call.operand(0).dims);
  if (!from || !x[0] || !x[1] || call.attributes.boolean("bound")) return std::nullopt;
  const AxisView view(*from, axis_of(call));
  DimContent out;
  for (std::int64_t o = 0; o < view.outer; ++o)
    for (const Dim& index : *x[1]) {
      if (!index.is_constant()) return std::nullopt;
      const std::int64_t row = checked_index(index.constant(), view.extent);
      for (std::int64_t i = 0; i < view.inner; ++i)
        out.push_back((*x[0])[static_cast<std::size_t>((o * view.extent + row) * view.inner + i)]);
    }
  return out;
}

std::vector<Value*> import(const ForeignNode& node, GraphBuilder& b) {
  Value* table = node.required(0);
  return {b.add("Gather", {table, node.required(1)}, {{"axis", std::int64_t{normalize_axis(node.integer("axis", 0), table->type.rank())}}})};
}

}  // namespace

const OpDef ops::Gather = {
    .name = "Gather",
    .doc = "Rows of a table along one axis, chosen by integer indices; negative indices count from the end.",
    .fields = {{.name = "axis", .kind = FieldKind::integer, .initial = std::int64_t{0}},
               {.name = "base", .kind = FieldKind::dim, .initial = Dim(0), .doc = "subtracted from every index"},
               {.name = "bound", .kind = FieldKind::boolean, .initial = false, .doc = "indices outside the table give zeros, negative ones too"}},
    .min_operands = 2,
    .max_operands = 2,
    .infer = infer,
    .rule = rule,
    .evaluate = evaluate,
    .fold = fold,
    .onnx = {{.op_type = "Gather", .since = 1, .import = import}},
};

}  // namespace tandem
