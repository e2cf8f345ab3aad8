// cleanup: drops steps that change nothing and joins neighbours of one kind.
#include <algorithm>
#include <numeric>

#include "ops/shape_rules.h"
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
// [B,H,S,D] → [B·H,S,D] → [B·H,D,S] → [B,H,D,S], also from [B,H,G,S,D].
Value* batched_transpose(Node& node) {
  Node* transpose = made_by(node.operand(0), "Transpose");
  Node* flatten = transpose ? made_by(transpose->operand(0), "Reshape") : nullptr;
  if (!flatten || transpose->attributes.integers("permutation") != std::vector<std::int64_t>{0, 2, 1}) return nullptr;
  const auto &from = flatten->operand(0)->type.dims, &flat = flatten->result()->type.dims, &to = node.result()->type.dims;
  const std::size_t rank = from.size(), out = to.size();
  if (rank < 3 || out < 3 || from[rank - 1] != to[out - 2] || from[rank - 2] != to[out - 1]) return nullptr;
  if (flat[1] != from[rank - 2] || flat[2] != from[rank - 1]) return nullptr;
  std::vector<Dim> open = to;
  std::swap(open[out - 2], open[out - 1]);
  std::vector<std::int64_t> permutation(out);
  std::iota(permutation.begin(), permutation.end(), 0);
  std::swap(permutation[out - 1], permutation[out - 2]);
  GraphBuilder builder = builder_before(node);
  return builder.add("Transpose", {reshape(builder, flatten->operand(0), open)}, {{"permutation", permutation}});
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

Value* simpler_expand(Node& node) {
  if (node.operand(0)->type.dims == node.result()->type.dims) return node.operand(0);
  Node* inner = made_by(node.operand(0), "Expand");
  return inner ? builder_before(node).add("Expand", {inner->operand(0)}, named(node.attributes)) : nullptr;
}

Value* simpler_where(Node& node) {
  const auto condition = number_of(node.operand(0));
  if (!condition) return nullptr;
  Value* chosen = node.operand(*condition != 0 ? 1 : 2);
  return chosen->type == node.result()->type ? chosen : nullptr;
}

bool is_neutral(const Node& node, std::size_t operand, std::optional<double> number) {
  if (!number) return false;
  if (node.is("Add") || node.is("Or")) return *number == 0;
  if (node.is("Mul")) return *number == 1;
  if (node.is("And")) return *number != 0;
  return operand == 1 && ((node.is("Sub") && *number == 0) || ((node.is("Div") || node.is("Pow")) && *number == 1));
}

// Operations with a number that leaves the other operand as it is, but for broadcasting.
Value* neutral(Node& node) {
  if (node.operands().size() != 2) return nullptr;
  for (const std::size_t i : {1u, 0u}) {
    Value* other = node.operand(1 - i);
    if (other->type.dtype != node.result()->type.dtype || !is_neutral(node, i, number_of(node.operand(i)))) continue;
    if (other->type == node.result()->type) return other;
    return builder_before(node).add("Expand", {other}, {{"shape", node.result()->type.dims}});
  }
  return nullptr;
}

// A pointwise op over expanded operands works on what they were expanded from; its result is expanded if it must be.
Value* before_expand(Node& node) {
  std::vector<Value*> operands = node.operands();
  std::vector<Dim> dims;
  bool found = false;
  for (Value*& v : operands) {
    if (Node* expand = made_by(v, "Expand")) {
      v = expand->operand(0);
      found = true;
    }
    dims = broadcast_dims(dims, v->type.dims).dims;
  }
  const std::vector<Dim>& wanted = node.result()->type.dims;
  for (std::size_t i = 0; i < dims.size(); ++i)
    if (dims[i] != Dim(1) && dims[i] != wanted[wanted.size() - dims.size() + i]) return nullptr;
  if (!found) return nullptr;
  GraphBuilder builder = builder_before(node);
  Value* small = builder.add(node.op().name, operands, named(node.attributes));
  if (small->type == node.result()->type) return small;
  return builder.add("Expand", {small}, {{"shape", node.result()->type.dims}});
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
  if (node.is("Cast")) {
    Value* cast = simpler_cast(node);
    return cast ? cast : before_expand(node);
  }
  if (node.is("Transpose")) return simpler_transpose(node);
  if (node.is("Reshape")) return simpler_reshape(node);
  if (node.is("Expand")) return simpler_expand(node);
  if (node.is("Slice") || node.is("Pad")) return nullptr;
  if (node.is("Concat")) return node.operands().size() == 1 ? node.operand(0) : nullptr;
  if (node.is("Not") && made_by(node.operand(0), "Not")) return without_not(node);
  if (node.is("Where")) {
    Value* chosen = simpler_where(node);
    if (!chosen) chosen = without_not(node);
    return chosen ? chosen : before_expand(node);
  }
  if (!node.op().pointwise) return nullptr;
  Value* same = neutral(node);
  return same ? same : before_expand(node);
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
