// recognise_rotary: x·cos + rotate_half(x)·sin with rotate_half(x) = [−x₂, x₁], where both halves of cos and sin hold the same
// angles: then one half goes into RotaryEmbedding. A head of which only the first elements are rotated becomes one node too.
#include <algorithm>

#include "passes/match.h"
#include "passes/passes.h"

namespace tandem::passes {
namespace {

const std::vector<std::int64_t> kSwapHeads = {0, 2, 1, 3};

// The range of the last dimension that a Slice takes, with the value it is taken from.
struct Part {
  Value* of = nullptr;
  std::int64_t begin = 0, end = 0;
};

std::optional<Part> part_of(const Value* value) {
  const Node* slice = made_by(value, "Slice");
  if (!slice) return std::nullopt;
  const auto& axes = slice->attributes.integers("axes");
  const auto& steps = slice->attributes.integers("steps");
  const std::int64_t last = value->type.rank() - 1;
  const auto begin = slice->attributes.dims("starts")[0].value(), end = slice->attributes.dims("ends")[0].value();
  if (axes.size() != 1 || (axes[0] != last && axes[0] != -1) || (!steps.empty() && steps[0] != 1) || !begin || !end) return std::nullopt;
  return Part{slice->operand(0), *begin, *end};
}

bool joins_last(const Node* concat, std::size_t count) {
  if (!concat || concat->operands().size() != count) return false;
  const std::int64_t axis = concat->attributes.integer("axis");
  return axis == -1 || axis == concat->result()->type.rank() - 1;
}

// x of [−x₂, x₁].
Value* unrotated(const Value* value) {
  const Node* concat = made_by(value, "Concat");
  if (!joins_last(concat, 2)) return nullptr;
  const Node* negative = made_by(concat->operand(0), "Neg");
  const auto second = negative ? part_of(negative->operand(0)) : std::nullopt, first = part_of(concat->operand(1));
  if (!first || !second || first->of != second->of) return nullptr;
  const auto size = last_dim(first->of)->value();
  const bool halves = size && first->begin == 0 && first->end * 2 == *size && second->begin == first->end && second->end == *size;
  return halves ? first->of : nullptr;
}

// A table in the file whose halves hold the same numbers.
bool repeats(const Value* table, std::int64_t half) {
  const auto known = constant_of(table, std::int64_t{1} << 24);
  if (!known || known->shape().empty() || known->shape().back() != 2 * half) return false;
  for (std::int64_t row = 0; row < known->count(); row += 2 * half)
    for (std::int64_t i = 0; i < half; ++i)
      if (known->at(row + i) != known->at(row + half + i)) return false;
  return true;
}

Value* first_half(GraphBuilder& builder, Value* value, std::int64_t half) { return slice_last(builder, value, 0, half); }

bool touches_last(const Node& slice) {
  const std::int64_t last = slice.result()->type.rank() - 1;
  return std::ranges::any_of(slice.attributes.integers("axes"), [&](std::int64_t axis) { return axis == -1 || axis == last; });
}

// The first half along the last dimension of a value whose halves are equal; null if that cannot be seen.
Value* half_of(GraphBuilder& builder, Value* value, std::int64_t half, int depth = 0) {
  if (depth > 12 || value->type.dims.empty() || last_dim(value) != Dim(2 * half)) return nullptr;
  if (repeats(value, half)) return first_half(builder, value, half);
  Node* node = value->producer();
  if (!node || node->results().size() != 1) return nullptr;
  if (joins_last(node->is("Concat") ? node : nullptr, 2)) return node->operand(0) == node->operand(1) ? node->operand(0) : nullptr;
  NamedAttributes attributes = named(node->attributes);
  if (node->is("Reshape") || node->is("Expand") || node->is("Slice") || node->is("Gather")) {
    const Value* from = node->operand(0);
    if (node->is("Gather") && (node->attributes.integer("axis") != 0 || from->type.rank() < 2)) return nullptr;
    if (node->is("Slice") && touches_last(*node)) return nullptr;
    Value* inner = half_of(builder, node->operand(0), half, depth + 1);
    if (!inner) return nullptr;
    if (node->is("Reshape") || node->is("Expand")) {
      std::vector<Dim> shape = value->type.dims;
      shape.back() = half;
      attributes = {{"shape", shape}};
    }
    std::vector<Value*> operands = node->operands();
    operands[0] = inner;
    return builder.add(node->op().name, operands, attributes);
  }
  if (!node->op().pointwise) return nullptr;
  std::vector<Value*> operands = node->operands();
  for (Value*& operand : operands) {
    if (operand->type.dims.empty() || *last_dim(operand) == Dim(1)) continue;
    operand = half_of(builder, operand, half, depth + 1);
    if (!operand) return nullptr;
  }
  return builder.add(node->op().name, operands, attributes);
}

// Half an angle table over [B or 1, S, R/2] from a factor of x over [B or 1, 1, S, R]; with `swapped`, [B or 1, S, 1, R].
Value* angles(GraphBuilder& builder, Value* factor, bool swapped, std::int64_t half) {
  const std::vector<Dim>& dims = factor->type.dims;
  if (dims.size() > 4 || dims.size() < 2) return nullptr;
  std::vector<Dim> four(4 - dims.size(), Dim(1));
  four.insert(four.end(), dims.begin(), dims.end());
  if (four[swapped ? 2 : 1] != Dim(1)) return nullptr;
  Value* narrow = half_of(builder, factor, half);
  return narrow ? reshape(builder, narrow, {four[0], four[swapped ? 1 : 2], Dim(half)}) : nullptr;
}

// x and the factor of a Mul, in either order; null if x is no operand.
Value* factor_of(const Value* product, const Value* x) {
  const Node* mul = made_by(product, "Mul");
  if (!mul || (mul->operand(0) != x && mul->operand(1) != x)) return nullptr;
  return mul->operand(mul->operand(0) == x ? 1 : 0);
}

bool rotates(Node& node) {
  if (!node.is("Add") || node.result()->type.rank() != 4 || !is_float(node.result()->type.dtype)) return false;
  for (const std::size_t i : {0u, 1u}) {
    Node* turned = made_by(node.operand(1 - i), "Mul");
    for (const std::size_t j : {0u, 1u}) {
      Value* x = turned ? unrotated(turned->operand(j)) : nullptr;
      Value* cos = x ? factor_of(node.operand(i), x) : nullptr;
      if (!cos || x->type != node.result()->type) continue;
      Value* sin = turned->operand(1 - j);
      const std::int64_t half = last_dim(x)->constant() / 2;
      const auto beside = [&](const Value* v, std::size_t heads) {
        const std::vector<Dim>& d = v->type.dims;
        return d.size() == 4 && d[heads] == Dim(1) && d[3 - heads] == x->type.dims[3 - heads];
      };
      const bool swapped = !beside(cos, 1) && beside(cos, 2);
      GraphBuilder builder = builder_before(node);
      Value *c = angles(builder, cos, swapped, half), *s = c ? angles(builder, sin, swapped, half) : nullptr;
      const std::size_t rows = swapped ? 1 : 2;
      if (!s || c->type != s->type || c->type.dims[1] != x->type.dims[rows]) continue;
      if (swapped) x = builder.add("Transpose", {x}, {{"permutation", kSwapHeads}});
      Value* y = builder.add("RotaryEmbedding", {x, c, s});
      if (swapped) y = builder.add("Transpose", {y}, {{"permutation", kSwapHeads}});
      node.graph().replace_uses(node.result(), y);
      return true;
    }
  }
  return false;
}

// [rotated first elements, the rest].
bool joins_rest(Node& node) {
  if (!node.is("Concat") || !joins_last(&node, 2)) return false;
  Node* rotary = made_by(node.operand(0), "RotaryEmbedding");
  if (!rotary || rotary->attributes.integer("rotary_dim") != 0 || !has_one_use(rotary->result())) return false;
  const auto first = part_of(rotary->operand(0)), rest = part_of(node.operand(1));
  if (!first || !rest || first->of != rest->of || first->begin != 0 || first->end != rest->begin) return false;
  if (first->of->type != node.result()->type) return false;
  NamedAttributes attributes = named(rotary->attributes);
  for (auto& [name, value] : attributes)
    if (name == "rotary_dim") value = first->end;
  GraphBuilder builder = builder_before(node);
  node.graph().replace_uses(node.result(), builder.add("RotaryEmbedding", {first->of, rotary->operand(1), rotary->operand(2)}, attributes));
  return true;
}

bool rewrite(Node& node) { return rotates(node) || joins_rest(node); }

}  // namespace

bool recognise_rotary(Module& module, const PassOptions&) { return for_each_node(module, rewrite); }

}  // namespace tandem::passes
