// recognise_silu: x·sigmoid(x).
#include "passes/match.h"
#include "passes/passes.h"

namespace tandem::passes {
namespace {

bool rewrite(Node& node) {
  if (!node.is("Mul")) return false;
  for (std::size_t i : {0u, 1u}) {
    Node* gate = made_by(node.operand(i), "Sigmoid");
    if (!gate || gate->operand(0) != node.operand(1 - i)) continue;
    node.graph().replace_uses(node.result(), builder_before(node).add("Silu", {gate->operand(0)}));
    return true;
  }
  return false;
}

}  // namespace

bool recognise_silu(Module& module, const PassOptions&) { return for_each_node(module, rewrite); }

}  // namespace tandem::passes
