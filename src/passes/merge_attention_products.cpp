// merge_attention_products: the products that make q, k and v of one FlatAttention from the same rows become one, whose columns the
// attention reads in place. What is multiplied is read once, and one wide product runs better than three narrow ones.
#include <algorithm>

#include "passes/match.h"
#include "passes/passes.h"

namespace tandem::passes {
namespace {

constexpr std::size_t kResidual = 3;

// A product of rows with a matrix of weights, made for `user` alone, with at most a bias of weights behind it.
Node* plain_product(const Value* value, const Node& user) {
  Node* product = product_behind(value);
  if (!product || value->graph().is_output(value) || product->attributes.text("activation") != "none") return nullptr;
  if (!std::ranges::all_of(value->uses(), [&](const Use& use) { return use.node == &user; })) return nullptr;
  return multiplies_weights(*product) && !product->operand(kResidual) && last_dim(value)->is_constant() ? product : nullptr;
}

Value* joined(Graph& graph, const std::vector<Node*>& products, std::size_t operand) {
  std::vector<RecipePtr> parts;
  bool frozen = false;
  for (const Node* product : products) {
    const Weight& weight = *product->operand(operand)->weight();
    parts.push_back(weight.recipe);
    frozen = frozen || weight.frozen;
  }
  const std::string name = products[0]->operand(operand)->weight()->name + ".merged";
  return graph.weight_value(graph.module().add_weight(name, Recipe::concat(parts, products[0]->operand(operand)->type.rank() - 1), frozen));
}

bool rewrite(Node& node) {
  if (!node.is("FlatAttention")) return false;
  std::vector<Node*> products;  // distinct ones, in the order of q, k, v
  for (std::size_t i = 0; i < 3; ++i) {
    Node* product = plain_product(node.operand(i), node);
    if (!product || product->operand(0) != node.operand(0)->producer()->operand(0)) return false;
    if (!joins_columns(*product, *node.operand(0)->producer())) return false;
    if (product->result()->type.dtype != node.operand(0)->type.dtype) return false;
    if (std::ranges::find(products, product) == products.end()) products.push_back(product);
  }
  if (products.size() < 2) return false;

  Graph& graph = node.graph();
  std::vector<Value*> operands = products[0]->operands();
  for (const std::size_t i : column_operands(*products[0])) operands[i] = joined(graph, products, i);
  GraphBuilder builder = builder_before(node);
  Value* merged = builder.add(products[0]->op().name, operands, named(products[0]->attributes));
  merged->producer()->note = "q, k and v in one product";
  std::vector<std::int64_t> begins = node.attributes.integers("begins");
  for (std::size_t i = 0; i < 3; ++i) {
    for (const Node* product : products) {
      if (product == node.operand(i)->producer()) break;
      begins[i] += last_dim(product->result())->constant();
    }
  }
  for (std::size_t i = 0; i < 3; ++i) node.set_operand(i, merged);
  node.attributes.set("begins", begins);
  return true;
}

}  // namespace

bool merge_attention_products(Module& module, const PassOptions&) { return for_each_node(module, rewrite); }

}  // namespace tandem::passes
