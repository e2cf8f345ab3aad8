// merge_gates: a gate and what it gates (SwiGLU, GeGLU), products of one operand, become one product and Gated over its halves.
// Weights and biases are put beside each other by their recipes, on each rank its own columns.
#include <algorithm>

#include "passes/match.h"
#include "passes/passes.h"

namespace tandem::passes {
namespace {

bool mergeable(const Node& product) {
  return multiplies_weights(product) && !product.operand(3) && product.result()->sharding.partial.empty();
}

bool same_form(const Node& a, const Node& b) { return a.operand(0) == b.operand(0) && joins_columns(a, b); }

bool is_plain(const Node& product) { return product.attributes.text("activation") == "none"; }

// Parts that were cut from one recipe and lie beside each other are that recipe again.
RecipePtr beside(const std::vector<RecipePtr>& parts, int axis) {
  Dim next = 0;
  for (const RecipePtr& part : parts) {
    const bool slice = part->kind == Recipe::Kind::slice && parts[0]->kind == Recipe::Kind::slice && part->axis == axis;
    if (!slice || part->inputs[0] != parts[0]->inputs[0] || part->begin != next) return Recipe::concat(parts, axis);
    next = next + Dim(part->shape[static_cast<std::size_t>(axis)]);
  }
  const RecipePtr& whole = parts[0]->inputs[0];
  return next == Dim(whole->shape[static_cast<std::size_t>(axis)]) ? whole : Recipe::concat(parts, axis);
}

Value* merged_weight(Graph& graph, const std::vector<Node*>& products, std::size_t operand) {
  std::vector<RecipePtr> parts;
  bool frozen = false;
  for (const Node* product : products) {
    const Weight& weight = *product->operand(operand)->weight();
    parts.push_back(weight.recipe);
    frozen |= weight.frozen;
  }
  const std::string name = "merged/" + products[0]->operand(operand)->weight()->name;
  return graph.weight_value(graph.module().add_weight(name, beside(parts, products[0]->operand(operand)->type.rank() - 1), frozen));
}

// Lies as the parts do, but for its columns, which are each rank's own.
Sharding merged_sharding(const Sharding& part) {
  Sharding s = part;
  if (s.dims.empty()) return s;
  for (const Factor& f : s.dims.back())
    for (const std::string& axis : f.axes) s.varying.push_back(axis);
  s.dims.back().clear();
  return s;
}

// The product of the common operand with all weights, without activation, added before the first of them.
Value* merged(const std::vector<Node*>& products) {
  Graph& graph = products[0]->graph();
  const auto ours = [&](const auto& node) { return std::ranges::find(products, node.get()) != products.end(); };
  std::vector<Value*> operands = products[0]->operands();
  for (const std::size_t i : column_operands(*products[0])) operands[i] = merged_weight(graph, products, i);
  NamedAttributes attributes = named(products[0]->attributes);
  for (auto& [name, value] : attributes)
    if (name == "activation") value = std::string("none");
  Value* all = builder_before(**std::ranges::find_if(graph.nodes(), ours)).add(products[0]->op().name, operands, attributes);
  all->sharding = merged_sharding(products[0]->result()->sharding);
  all->producer()->note = "a gate and what it gates, in one product";
  return all;
}

// activation(x·w₁)·(x·w₂).
bool rewrite(Node& node) {
  if (!node.is("Mul")) return false;
  for (const std::size_t i : {0u, 1u}) {
    Node *gate = product_behind(node.operand(i)), *up = product_behind(node.operand(1 - i));
    if (!gate || !up || gate == up || !has_one_use(gate->result()) || !has_one_use(up->result())) continue;
    if (is_plain(*gate) || !is_plain(*up) || !mergeable(*gate) || !mergeable(*up) || !same_form(*gate, *up)) continue;
    if (gate->result()->type != up->result()->type || gate->result()->sharding != up->result()->sharding) continue;
    Value* all = merged({gate, up});
    Value* gated = builder_before(node).add("Gated", {all}, {{"activation", gate->attributes.text("activation")}});
    gated->sharding = node.result()->sharding;
    node.graph().replace_uses(node.result(), gated);
    return true;
  }
  return false;
}

}  // namespace

bool merge_gates(Module& module, const PassOptions&) { return for_each_node(module, rewrite); }

}  // namespace tandem::passes
