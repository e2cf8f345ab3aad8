#include "core/check.h"
#include "graph/graph.h"
#include "ops/along_axis.h"
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

// The row of this part of the table; nothing if another rank has it.
std::optional<std::int64_t> GatherRows::find(std::int64_t index) const {
  const std::int64_t row = checked_index(index, whole) - base;
  if (row < 0 || row >= extent) return std::nullopt;
  return row;
}

GatherRows gather_rows(const OpCall& call, std::int64_t extent) {
  const std::int64_t whole = call.attributes.dim("whole").constant();
  return {.base = call.attributes.dim("base").constant(), .extent = extent, .whole = whole == 0 ? extent : whole};
}

namespace {

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
  // Rows of other ranks count as zeros, so the sum over the ranks is the row.
  const bool sums = call.operand(0).dtype != DType::boolean && call.attributes.dim("whole") == Dim(0);
  const auto along_axis = sums ? ShardingRule::Role::contract : ShardingRule::Role::whole;
  for (int d = 0; d < call.operand(0).rank(); ++d)
    rule.operands[0].push_back(
        {rule.add(call.operand(0).dims[static_cast<std::size_t>(d)], d == axis ? along_axis : ShardingRule::Role::parallel)});
  for (const Dim& d : call.operand(1).dims) rule.operands[1].push_back({rule.add(d)});
  auto result = rule.operands[0];
  result.erase(result.begin() + axis);
  result.insert(result.begin() + axis, rule.operands[1].begin(), rule.operands[1].end());
  rule.results.push_back(std::move(result));
  return rule;
}

// A table split over an axis leaves a partial sum.
void localize(Node& node, const Mesh& mesh) {
  const auto& partial = node.result()->sharding.partial;
  if (partial.empty()) return;
  check(partial.size() == 1, "a table is split over one axis");
  const Dim rows = node.operand(0)->type.dims[static_cast<std::size_t>(axis_of(node.call()))];
  const Factor split{rows, {partial.front().axis}};
  node.attributes.set("base", split_index(split, mesh) * ceil_div(rows, split_count(split, mesh)));
  node.attributes.set("whole", rows);
}

std::vector<Tensor> evaluate(const OpCall& call, std::span<const Tensor> x) {
  const AxisView view(x[0].shape(), axis_of(call));
  const GatherRows rows = gather_rows(call, view.extent);
  const std::int64_t count = x[1].count();
  Tensor out(x[0].dtype(), shape_of(call.results.at(0)));
  std::byte* to = out.mutable_data();
  for (std::int64_t n = 0; n < count; ++n) {
    const auto row = rows.find(x[1].int_at(n));
    if (!row) continue;  // zeros
    for (std::int64_t o = 0; o < view.outer; ++o)
      for (std::int64_t i = 0; i < view.inner; ++i)
        copy_element(out.dtype(), x[0].data(), (o * view.extent + *row) * view.inner + i, to, (o * count + n) * view.inner + i);
  }
  return {out};
}

std::optional<DimContent> fold(const OpCall& call, std::span<const std::optional<DimContent>> x) {
  const auto from = content_shape(call.operand(0).dims);
  if (!from || !x[0] || !x[1] || call.attributes.dim("whole") != Dim(0)) return std::nullopt;
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
  return {
      b.add("Gather", {table, node.required(1)}, {{"axis", std::int64_t{normalize_axis(node.integer("axis", 0), table->type.rank())}}})};
}

}  // namespace

const OpDef ops::Gather = {
    .name = "Gather",
    .doc = "Rows of a table along one axis, chosen by integer indices; negative indices count from the end.",
    .fields = {{.name = "axis", .kind = FieldKind::integer, .initial = std::int64_t{0}, .doc = "the dimension that is indexed"},
               {.name = "base", .kind = FieldKind::dim, .initial = Dim(0), .doc = "row of the whole table that the part begins with"},
               {.name = "whole",
                .kind = FieldKind::dim,
                .initial = Dim(0),
                .doc = "rows of the whole table, whose indices these are; rows that the part lacks give zeros (0: the table is whole)"}},
    .operands = {{"table"}, {"indices", "i32 or i64"}},
    .min_operands = 2,
    .max_operands = 2,
    .infer = infer,
    .rule = rule,
    .localize = localize,
    .evaluate = evaluate,
    .fold = fold,
    .onnx = {{.op_type = "Gather", .since = 1, .import = import}},
};

}  // namespace tandem
