#include "ops/pointwise/define.h"

namespace tandem::pointwise {

Value* add_broadcast(GraphBuilder& builder, std::string_view op, Value* a, Value* b, const NamedAttributes& attributes) {
  for (const auto& [x, y] : broadcast_dims(a->type.dims, b->type.dims).equal) builder.require_equal(x, y);
  return builder.add(op, {a, b}, attributes);
}

std::vector<Value*> import_unary(const ForeignNode& node, GraphBuilder& builder) { return {builder.add(node.op_type, {node.required(0)})}; }

std::vector<Value*> import_binary(const ForeignNode& node, GraphBuilder& builder) {
  return {add_broadcast(builder, node.op_type, node.required(0), node.required(1))};
}

std::vector<Value*> import_chain(std::string_view op, const ForeignNode& node, GraphBuilder& builder) {
  Value* result = node.required(0);
  for (std::size_t i = 1; i < node.inputs.size(); ++i) result = add_broadcast(builder, op, result, node.required(i));
  return {result};
}

ShardingRule linear_unary_rule(const OpCall& call) {
  ShardingRule rule = pointwise_rule(call);
  rule.linear = {true};
  return rule;
}

}  // namespace tandem::pointwise
