// split_packed: MatMul → [Add bias] → Slices along the columns becomes one product per slice, with sliced weights, so that
// each can be sharded by heads. `fuse` may merge them again.
#include <algorithm>

#include "passes/match.h"
#include "passes/passes.h"

namespace tandem::passes {
namespace {

struct Columns {
  Node* slice;
  std::int64_t begin, length;
};

std::optional<Columns> columns_of(Node* node, const Value* whole) {
  if (!node->is("Slice")) return std::nullopt;
  const auto& axes = node->attributes.integers("axes");
  const auto& steps = node->attributes.integers("steps");
  const int last = whole->type.rank() - 1;
  if (axes.size() != 1 || (axes[0] != last && axes[0] != -1) || (!steps.empty() && steps[0] != 1)) return std::nullopt;
  const auto begin = node->attributes.dims("starts")[0].value(), length = last_dim(node->result())->value(), all = last_dim(whole)->value();
  if (!begin || !length || !all) return std::nullopt;
  return Columns{node, *begin < 0 ? *begin + *all : *begin, *length};
}

// All users are slices of columns that together cover the whole once.
std::vector<Columns> cover(const Value* whole) {
  std::vector<Columns> parts;
  if (whole->graph().is_output(whole)) return {};
  for (const Use& use : whole->uses()) {
    const auto part = columns_of(use.node, whole);
    if (!part) return {};
    parts.push_back(*part);
  }
  std::ranges::sort(parts, {}, &Columns::begin);
  std::int64_t next = 0;
  for (const Columns& part : parts) {
    if (part.begin != next) return {};
    next += part.length;
  }
  return parts.size() > 1 && last_dim(whole)->value() == next ? parts : std::vector<Columns>{};
}

Value* sliced_weight(Graph& graph, const Weight& weight, const Columns& part) {
  const int axis = static_cast<int>(weight.recipe->shape.size()) - 1;
  return graph.weight_value(
      graph.module().add_weight(weight.name, Recipe::slice(weight.recipe, axis, part.begin, part.length), weight.frozen));
}

bool rewrite(Node& node) {
  if (!multiplies_weights(node) || node.operand(2) || node.operand(3)) return false;
  Value* whole = node.result();
  const Weight* bias = nullptr;
  if (Node* add = only_user(whole, "Add")) {
    Value* other = add->operand(add->operand(1) == whole ? 0 : 1);
    if (!other->weight() || other->type.rank() != 1 || other->type.dims[0] != *last_dim(whole)) return false;
    bias = other->weight();
    whole = add->result();
  }
  const std::vector<Columns> parts = cover(whole);
  for (const Columns& part : parts) {
    GraphBuilder builder = builder_before(*part.slice);
    std::vector<Value*> operands = node.operands();
    for (const std::size_t i : column_operands(node)) operands[i] = sliced_weight(node.graph(), *operands[i]->weight(), part);
    Value* y = builder.add(node.op().name, operands, named(node.attributes));
    if (bias) y = builder.add("Add", {y, sliced_weight(node.graph(), *bias, part)});
    y->producer()->note = "a part of a packed product";
    node.graph().replace_uses(part.slice->result(), y);
  }
  return !parts.empty();
}

}  // namespace

bool split_packed(Module& module, const PassOptions&) { return for_each_node(module, rewrite); }

}  // namespace tandem::passes
