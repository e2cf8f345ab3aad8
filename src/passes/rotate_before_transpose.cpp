// rotate_before_transpose: heads are rotated as the product before them left them, [B,S,H,D], so that the transpose stands beside the
// attention, which takes it in.
#include "passes/match.h"
#include "passes/passes.h"

namespace tandem::passes {
namespace {

const std::vector<std::int64_t> kSwapHeads = {0, 2, 1, 3};

Sharding swapped(Sharding s) {
  if (!s.dims.empty()) std::swap(s.dims[1], s.dims[2]);
  return s;
}

bool rewrite(Node& node) {
  if (!node.is("RotaryEmbedding") || node.attributes.text("order") != "bhsd") return false;
  Node* transpose = made_by(node.operand(0), "Transpose");
  if (!transpose || !has_one_use(transpose->result()) || transpose->attributes.integers("permutation") != kSwapHeads) return false;
  NamedAttributes attributes = named(node.attributes);
  for (auto& [name, value] : attributes)
    if (name == "order") value = std::string("bshd");
  GraphBuilder builder = builder_before(node);
  Value* rotated = builder.add("RotaryEmbedding", {transpose->operand(0), node.operand(1), node.operand(2)}, attributes);
  rotated->sharding = swapped(node.result()->sharding);
  Value* y = builder.add("Transpose", {rotated}, {{"permutation", kSwapHeads}});
  y->sharding = node.result()->sharding;
  node.graph().replace_uses(node.result(), y);
  return true;
}

}  // namespace

bool rotate_before_transpose(Module& module, const PassOptions&) { return for_each_node(module, rewrite); }

}  // namespace tandem::passes
