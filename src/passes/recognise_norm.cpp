// recognise_norm: (x − mean)/√(variance + ε)·scale + bias, and x/√(mean of x² + ε)·scale, in the orders that exporters write.
#include "passes/match.h"
#include "passes/passes.h"

namespace tandem::passes {
namespace {

// The operand of a mean over the last dimension alone that keeps it as 1.
Value* mean_of(Value* value) {
  Node* reduce = made_by(value, "Reduce");
  if (!reduce || reduce->attributes.text("kind") != "mean" || !reduce->attributes.boolean("keepdims")) return nullptr;
  const auto& axes = reduce->attributes.integers("axes");
  const int rank = reduce->operand(0)->type.rank();
  return axes.size() == 1 && (axes[0] == -1 || axes[0] == rank - 1) ? reduce->operand(0) : nullptr;
}

// x of x² .
Value* root_of_square(Value* value) {
  if (Node* pow = made_by(value, "Pow")) return is_about(number_of(pow->operand(1)), 2, 0) ? pow->operand(0) : nullptr;
  Node* mul = made_by(value, "Mul");
  return mul && mul->operand(0) == mul->operand(1) ? mul->operand(0) : nullptr;
}

struct Root {
  Value* squared = nullptr;  // what the mean of squares is taken of
  double epsilon = 0;
};

// √(mean of x² + ε) from the value under the root.
std::optional<Root> root_from(Value* under) {
  const auto sum = with_number(made_by(under, "Add"));
  Value* squares = sum ? mean_of(sum->other) : nullptr;
  Value* x = squares ? root_of_square(squares) : nullptr;
  return x ? std::optional(Root{x, sum->number}) : std::nullopt;
}

std::optional<Root> root(Value* value) {
  if (Node* sqrt = made_by(value, "Sqrt")) return root_from(sqrt->operand(0));
  Node* pow = made_by(value, "Pow");
  return pow && number_of(pow->operand(1)) == 0.5 ? root_from(pow->operand(0)) : std::nullopt;
}

std::optional<Root> reciprocal_root(Value* value) {
  if (Node* reciprocal = made_by(value, "Reciprocal")) return root(reciprocal->operand(0));
  if (Node* div = made_by(value, "Div")) return number_of(div->operand(0)) == 1 ? root(div->operand(1)) : std::nullopt;
  Node* pow = made_by(value, "Pow");
  return pow && number_of(pow->operand(1)) == -0.5 ? root_from(pow->operand(0)) : std::nullopt;
}

// The node divides `squared` by the root of its own mean square.
std::optional<Root> normalizes(const Node& node) {
  if (node.is("Div")) {
    auto found = root(node.operand(1));
    return found && found->squared == node.operand(0) ? found : std::nullopt;
  }
  if (!node.is("Mul")) return std::nullopt;
  for (std::size_t i : {0u, 1u}) {
    auto found = reciprocal_root(node.operand(i));
    if (found && found->squared == node.operand(1 - i)) return found;
  }
  return std::nullopt;
}

// x if `value` is x − mean of x.
Value* centred(Value* value) {
  Node* sub = made_by(value, "Sub");
  return sub && mean_of(sub->operand(1)) == sub->operand(0) ? sub->operand(0) : nullptr;
}

// The next node is `op` with a vector over the last dimension; the vector comes back in `vector`.
Node* with_vector(Value* value, std::string_view op, Value*& vector) {
  Node* node = only_user(value, op);
  if (!node || node->operands().size() != 2) return nullptr;
  Value* other = node->operand(node->operand(0) == value ? 1 : 0);
  if (other->type.rank() != 1 || other->type.dims[0] != *last_dim(value) || other == value) return nullptr;
  vector = other;
  return node;
}

bool rewrite(Node& node) {
  if (!is_float(node.result()->type.dtype)) return false;
  const auto found = normalizes(node);
  if (!found) return false;
  Value* x = centred(found->squared);
  const bool centres = x != nullptr;
  if (!centres) x = found->squared;
  Value* normalized = node.result();
  // f16 models compute the norm in f32 between two casts: the norm op does so by itself.
  Node* narrow = only_user(normalized, "Cast");
  Node* widen = made_by(x, "Cast");
  const bool island =
      narrow && widen && narrow->result()->type.dtype == widen->operand(0)->type.dtype && is_float(narrow->result()->type.dtype);
  Value* scaled_from = island ? narrow->result() : normalized;
  Value *scale = nullptr, *bias = nullptr;
  Node* last = with_vector(scaled_from, "Mul", scale);
  if (!last) return false;
  if (island) x = widen->operand(0);
  if (scale->type.dtype != x->type.dtype) return false;
  if (centres)
    if (Node* add = with_vector(last->result(), "Add", bias)) last = add;
  std::vector<Value*> operands = {x, scale};
  if (bias) operands.push_back(bias);
  const NamedAttributes attributes = {{"axis", std::int64_t{-1}}, {"epsilon", found->epsilon}};
  Value* norm = builder_before(*last).add(centres ? "LayerNorm" : "RmsNorm", operands, attributes);
  node.graph().replace_uses(last->result(), norm);
  return true;
}

}  // namespace

bool recognise_norm(Module& module, const PassOptions&) { return for_each_node(module, rewrite); }

}  // namespace tandem::passes
