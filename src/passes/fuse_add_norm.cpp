// fuse_add_norm: Add and the norm of the sum become one node with two results; the sum stays available as the residual. A bias that was
// added to one of the two before (under tp it can only be added to the whole sum) goes along.
#include "passes/match.h"
#include "passes/passes.h"

namespace tandem::passes {
namespace {

bool is_bias_of(const Value* bias, const Value* sum) {
  return bias && !bias->producer() && bias->type.rank() == 1 && sum->type.rank() > 1 && bias->type.dims[0] == sum->type.dims.back();
}

// If `value` is made as other + bias for this one use: the bias, and `value` becomes the other.
Value* take_bias(Value*& value) {
  Node* add = made_by(value, "Add");
  if (!add || !has_one_use(value)) return nullptr;
  for (const std::size_t i : {0u, 1u}) {
    Value *bias = add->operand(i), *other = add->operand(1 - i);
    if (!is_bias_of(bias, value) || other->type != value->type) continue;
    value = other;
    return bias;
  }
  return nullptr;
}

bool rewrite(Node& node) {
  const bool layer = node.is("LayerNorm");
  if (!layer && !node.is("RmsNorm")) return false;
  Node* add = made_by(node.operand(0), "Add");
  if (!add || add->operand(0)->type != add->result()->type || add->operand(1)->type != add->result()->type) return false;
  Graph& graph = node.graph();
  Value *x = add->operand(0), *residual = add->operand(1);
  Value* offset = take_bias(x);
  if (!offset && (offset = take_bias(residual))) std::swap(x, residual);
  std::vector<Value*> operands = {x, residual};
  operands.insert(operands.end(), node.operands().begin() + 1, node.operands().end());
  if (offset) {
    if (layer) operands.resize(4);
    operands.push_back(offset);
  }
  for (std::size_t i = 2; i < operands.size(); ++i)
    if (operands[i] && operands[i]->producer()) return false;  // a parameter might be made after the sum is used
  GraphBuilder builder = builder_before(*add);
  builder.set_context(node.name());
  const auto results = builder.add_all(layer ? "AddLayerNorm" : "AddRmsNorm", operands, named(node.attributes));
  results[0]->sharding = node.result()->sharding;
  results[1]->sharding = add->result()->sharding;
  graph.replace_uses(node.result(), results[0]);
  graph.replace_uses(add->result(), results[1]);
  return true;
}

}  // namespace

bool fuse_add_norm(Module& module, const PassOptions&) { return for_each_node(module, rewrite); }

}  // namespace tandem::passes
