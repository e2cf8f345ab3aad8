#include "core/check.h"
#include "ops/along_axis.h"
#include "ops/gather/index.h"
#include "ops/layout/strided.h"
#include "ops/ops.h"
#include "ops/shape_rules.h"

namespace tandem {
namespace {

std::vector<Type> infer(const OpCall& call) {
  const Type &data = call.operand(0), &indices = call.operand(1);
  require_dtype(call, 1, is_index, "i32 or i64");
  if (data.rank() != indices.rank())
    fail(ErrorCode::invalid_model, "data is {} and indices are {}, expected equal ranks", data.to_string(), indices.to_string());
  return {{data.dtype, indices.dims}};
}

// Other dimensions than the axis go together where data has no more rows than the indices ask for.
ShardingRule rule(const OpCall& call) {
  ShardingRule rule;
  rule.operands.resize(2);
  using Role = ShardingRule::Role;
  for (int d = 0; d < call.operand(0).rank(); ++d) {
    const Dim &data = call.operand(0).dims[static_cast<std::size_t>(d)], &indices = call.operand(1).dims[static_cast<std::size_t>(d)];
    if (d != axis_of(call) && data == indices) {
      const int factor = rule.add(data);
      rule.operands[0].push_back({factor});
      rule.operands[1].push_back({factor});
    } else {
      rule.operands[0].push_back({rule.add(data, Role::whole)});
      rule.operands[1].push_back({rule.add(indices, d == axis_of(call) ? Role::parallel : Role::whole)});
    }
  }
  rule.results.push_back(rule.operands[1]);
  return rule;
}

std::vector<Tensor> evaluate(const OpCall& call, std::span<const Tensor> x) {
  const auto axis = static_cast<std::size_t>(axis_of(call));
  const Shape &from = x[0].shape(), &to = x[1].shape();
  for (std::size_t d = 0; d < to.size(); ++d)
    if (d != axis && to[d] > from[d]) fail(ErrorCode::invalid_argument, "indices {} reach past data {}", to_string(to), to_string(from));
  Shape strides = row_major_strides(from);
  const std::int64_t step = strides[axis];
  strides[axis] = 0;
  Tensor out(x[0].dtype(), to);
  std::byte* target = out.mutable_data();
  for_each_offset<1>(to, {strides}, [&](std::int64_t i, const auto& offsets) {
    copy_element(out.dtype(), x[0].data(), offsets[0] + checked_index(x[1].int_at(i), from[axis]) * step, target, i);
  });
  return {out};
}

std::vector<Value*> import(const ForeignNode& node, GraphBuilder& b) {
  Value* data = node.required(0);
  return {b.add("GatherElements", {data, node.required(1)},
                {{"axis", std::int64_t{normalize_axis(node.integer("axis", 0), data->type.rank())}}})};
}

}  // namespace

const OpDef ops::GatherElements = {
    .name = "GatherElements",
    .doc = "result[i, j, …] = data[i, indices[i, j, …], …], the index replacing the position along one axis.",
    .fields = {{.name = "axis", .kind = FieldKind::integer, .initial = std::int64_t{0}, .doc = "the dimension that is indexed"}},
    .operands = {{"data"}, {"indices", "i32 or i64"}},
    .min_operands = 2,
    .max_operands = 2,
    .infer = infer,
    .rule = rule,
    .evaluate = evaluate,
    .onnx = {{.op_type = "GatherElements", .since = 11, .import = import}},
};

}  // namespace tandem
