// unflatten_products: [B,S,K] → [B·S,K] · w → [B·S,N] → [B,S,N] becomes one product of rank 3, which shards along B and S.
#include "passes/match.h"
#include "passes/passes.h"

namespace tandem::passes {
namespace {

// From a product through single-use steps that treat each row alike to the Reshape that opens the rows; `steps` in order.
Node* opening_reshape(Node& product, std::vector<Node*>& steps) {
  for (Value* value = product.result();;) {
    if (!has_one_use(value)) return nullptr;
    const Use use = value->uses()[0];
    if (use.node->is("Reshape")) return use.node;
    const bool bias = use.node->is("Add") && use.node->operand(1 - static_cast<std::size_t>(use.operand))->type.rank() <= 1;
    if (!bias || use.node->result()->type != value->type) return nullptr;
    steps.push_back(use.node);
    value = use.node->result();
  }
}

bool rewrite(Node& node) {
  if (!is_product(node) || node.result()->type.rank() != 2 || !made_by(node.operand(0), "Reshape") || node.operand(3)) return false;
  std::vector<Node*> steps;
  Node* open = opening_reshape(node, steps);
  if (!open || open->result()->type.rank() < 3 || last_dim(open->result()) != last_dim(node.result())) return false;
  const std::vector<Dim> leading = leading_dims(open->result());
  std::vector<Dim> rows = leading;
  rows.push_back(*last_dim(node.operand(0)));
  if (product(rows) != product(node.operand(0)->type.dims)) return false;
  GraphBuilder builder = builder_before(*open);
  Value* x = node.operand(0);
  if (Node* flatten = made_by(x, "Reshape")) x = flatten->operand(0);
  std::vector<Value*> operands = node.operands();
  operands[0] = reshape(builder, x, rows);
  Value* y = builder.add(node.op().name, operands, named(node.attributes));
  const Value* before = node.result();
  for (Node* step : steps) {
    y = builder.add("Add", step->operand(0) == before ? std::vector{y, step->operand(1)} : std::vector{step->operand(0), y});
    before = step->result();
  }
  node.graph().replace_uses(open->result(), y);
  return true;
}

}  // namespace

bool unflatten_products(Module& module, const PassOptions&) { return for_each_node(module, rewrite); }

}  // namespace tandem::passes
