// cleanup: drops steps that change nothing and joins neighbours of one kind.
#include <algorithm>

#include "passes/match.h"
#include "passes/passes.h"

namespace tandem::passes {
namespace {

// a then b, as one permutation.
std::vector<std::int64_t> composed(const std::vector<std::int64_t>& a, const std::vector<std::int64_t>& b) {
  std::vector<std::int64_t> out;
  for (std::int64_t p : b) out.push_back(a[static_cast<std::size_t>(p)]);
  return out;
}

bool is_identity(const std::vector<std::int64_t>& permutation) { return std::ranges::is_sorted(permutation); }

// A cast that keeps every value of `from` exactly.
bool widens(DType from, DType to) {
  if (from == DType::boolean) return true;
  if (is_float(from) && is_float(to)) return (to == DType::f32 && bits(from) <= 16) || (to == DType::f64 && bits(from) <= 32);
  return is_integer(from) && to == DType::i64 && from != DType::u64;
}

Value* simpler_cast(Node& node) {
  Value* x = node.operand(0);
  const DType to = node.result()->type.dtype;
  if (x->type.dtype == to) return x;
  Node* inner = made_by(x, "Cast");
  if (!inner || !widens(inner->operand(0)->type.dtype, x->type.dtype)) return nullptr;
  Value* first = inner->operand(0);
  return first->type.dtype == to ? first : builder_before(node).add("Cast", {first}, {{"to", to}});
}

Value* simpler_transpose(Node& node) {
  const auto& permutation = node.attributes.integers("permutation");
  if (is_identity(permutation)) return node.operand(0);
  Node* inner = made_by(node.operand(0), "Transpose");
  if (!inner) return nullptr;
  const auto both = composed(inner->attributes.integers("permutation"), permutation);
  if (is_identity(both)) return inner->operand(0);
  return builder_before(node).add("Transpose", {inner->operand(0)}, {{"permutation", both}});
}

// Reshape(Transpose(Reshape(x))) that only merges and splits leading dimensions around a swap of the last two: the form
// [B,H,S,D] → [B·H,S,D] → [B·H,D,S] → [B,H,D,S].
Value* batched_transpose(Node& node) {
  Node* transpose = made_by(node.operand(0), "Transpose");
  Node* flatten = transpose ? made_by(transpose->operand(0), "Reshape") : nullptr;
  if (!flatten || transpose->attributes.integers("permutation") != std::vector<std::int64_t>{0, 2, 1}) return nullptr;
  const auto &from = flatten->operand(0)->type.dims, &flat = flatten->result()->type.dims, &to = node.result()->type.dims;
  const std::size_t rank = from.size();
  if (rank < 3 || to.size() != rank || from[rank - 1] != to[rank - 2] || from[rank - 2] != to[rank - 1]) return nullptr;
  if (flat[1] != from[rank - 2] || flat[2] != from[rank - 1]) return nullptr;
  std::vector<std::int64_t> permutation;
  for (std::size_t i = 0; i < rank; ++i) {
    if (i + 2 < rank && from[i] != to[i]) return nullptr;
    permutation.push_back(static_cast<std::int64_t>(i));
  }
  std::swap(permutation[rank - 1], permutation[rank - 2]);
  return builder_before(node).add("Transpose", {flatten->operand(0)}, {{"permutation", permutation}});
}

Value* simpler_reshape(Node& node) {
  Value* x = node.operand(0);
  if (x->type.dims == node.result()->type.dims) return x;
  if (Node* inner = made_by(x, "Reshape")) {
    GraphBuilder builder = builder_before(node);
    return reshape(builder, inner->operand(0), node.result()->type.dims);
  }
  return batched_transpose(node);
}

Value* simpler_where(Node& node) {
  const auto condition = number_of(node.operand(0));
  if (!condition) return nullptr;
  Value* chosen = node.operand(*condition != 0 ? 1 : 2);
  return chosen->type == node.result()->type ? chosen : nullptr;
}

// Operations with a number that leaves the other operand as it is.
Value* neutral(Node& node) {
  const std::size_t count = node.operands().size();
  if (count != 2) return nullptr;
  const auto right = number_beside(node.operand(1), node.operand(0));
  const bool on_right = right && ((node.is("Mul") && *right == 1) || (node.is("Div") && *right == 1) || (node.is("Sub") && *right == 0) ||
                                  (node.is("Add") && *right == 0) || (node.is("And") && *right != 0) || (node.is("Or") && *right == 0) ||
                                  (node.is("Pow") && *right == 1));
  if (on_right && node.operand(0)->type == node.result()->type) return node.operand(0);
  const auto left = number_beside(node.operand(0), node.operand(1));
  const bool on_left = left && ((node.is("Mul") && *left == 1) || (node.is("Add") && *left == 0) || (node.is("And") && *left != 0) ||
                                (node.is("Or") && *left == 0));
  return on_left && node.operand(1)->type == node.result()->type ? node.operand(1) : nullptr;
}

// Where of a condition or its negation: Not(Not(x)), Where(Not(c), a, b).
Value* without_not(Node& node) {
  Node* inner = made_by(node.operand(0), "Not");
  if (!inner) return nullptr;
  if (node.is("Not")) return inner->operand(0);
  return builder_before(node).add("Where", {inner->operand(0), node.operand(2), node.operand(1)});
}

Value* simpler(Node& node) {
  if (node.results().size() != 1 || node.op().collective || node.operands().empty() || !node.operand(0)) return nullptr;
  if (node.is("Cast")) return simpler_cast(node);
  if (node.is("Transpose")) return simpler_transpose(node);
  if (node.is("Reshape")) return simpler_reshape(node);
  if (node.is("Expand")) return node.operand(0)->type.dims == node.result()->type.dims ? node.operand(0) : nullptr;
  if (node.is("Slice") || node.is("Pad")) return nullptr;
  if (node.is("Concat")) return node.operands().size() == 1 ? node.operand(0) : nullptr;
  if (node.is("Not")) return without_not(node);
  if (node.is("Where")) {
    Value* chosen = simpler_where(node);
    return chosen ? chosen : without_not(node);
  }
  return node.op().pointwise ? neutral(node) : nullptr;
}

bool rewrite(Node& node) {
  Value* with = simpler(node);
  if (!with) return false;
  node.graph().replace_uses(node.result(), with);
  return true;
}

}  // namespace

bool cleanup(Module& module, const PassOptions&) {
  bool changed = false;
  while (for_each_node(module, rewrite)) changed = true;
  return changed;
}

}  // namespace tandem::passes
