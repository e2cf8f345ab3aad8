// fuse_add_norm: Add and the norm of the sum become one node with two results; the sum stays available as the residual.
#include "passes/match.h"
#include "passes/passes.h"

namespace tandem::passes {
namespace {

bool rewrite(Node& node) {
  const bool layer = node.is("LayerNorm");
  if (!layer && !node.is("RmsNorm")) return false;
  Node* add = made_by(node.operand(0), "Add");
  if (!add || add->operand(0)->type != add->result()->type || add->operand(1)->type != add->result()->type) return false;
  Graph& graph = node.graph();
  std::vector<Value*> operands = {add->operand(0), add->operand(1)};
  operands.insert(operands.end(), node.operands().begin() + 1, node.operands().end());
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
