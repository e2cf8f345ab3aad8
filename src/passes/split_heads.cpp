// split_heads: product → [Add bias] → Reshape [B,S,3,H,D] or [B,S,H,3·D] and the like → [Transpose] → one Gather or Slice each for
// q, k and v becomes one product each, with the weight's columns picked by its recipe, so that each can be sharded by heads.
#include <algorithm>

#include "ops/shape_rules.h"
#include "passes/match.h"
#include "passes/passes.h"

namespace tandem::passes {
namespace {

// Rows begin … begin + length along dimension `dim` of the opened product.
struct Take {
  Node* node;
  std::size_t dim;
  std::int64_t begin, length;
};

struct Packed {
  Node *product = nullptr, *open = nullptr, *transpose = nullptr;
  const Weight* bias = nullptr;
  std::vector<Take> takes;
};

std::optional<std::int64_t> inside(std::optional<std::int64_t> at, std::int64_t extent) {
  if (!at) return std::nullopt;
  return *at < 0 ? *at + extent : *at;
}

std::optional<Take> take_of(Node* node, const Value* from) {
  const bool gather = node->is("Gather");
  if ((!gather && !node->is("Slice")) || node->operand(0) != from) return std::nullopt;
  if (!gather && (node->attributes.integers("axes").size() != 1 || node->attributes.integers("steps") != std::vector<std::int64_t>{1}))
    return std::nullopt;
  const std::int64_t given = gather ? node->attributes.integer("axis") : node->attributes.integers("axes")[0];
  const auto axis = static_cast<std::size_t>(normalize_axis(given, from->type.rank()));
  const auto extent = from->type.dims[axis].value();
  if (!extent) return std::nullopt;
  if (!gather) {
    const auto begin = inside(node->attributes.dims("starts")[0].value(), *extent);
    const auto length = node->result()->type.dims[axis].value();
    return begin && length ? std::optional(Take{node, axis, *begin, *length}) : std::nullopt;
  }
  const auto index = constant_of(node->operand(1), 1);
  if (!index || !index->shape().empty()) return std::nullopt;
  return Take{node, axis, *inside(index->int_at(0), *extent), 1};
}

// All users take along one dimension and cover it once.
std::vector<Take> takes_of(const Value* value) {
  std::vector<Take> takes;
  if (value->graph().is_output(value)) return {};
  for (const Use& use : value->uses()) {
    const auto take = take_of(use.node, value);
    if (!take || (!takes.empty() && take->dim != takes[0].dim)) return {};
    takes.push_back(*take);
  }
  std::ranges::sort(takes, {}, &Take::begin);
  std::int64_t next = 0;
  for (const Take& take : takes) {
    if (take.begin != next) return {};
    next += take.length;
  }
  const bool whole = takes.size() > 1 && value->type.dims[takes[0].dim] == Dim(next);
  return whole ? takes : std::vector<Take>{};
}

std::optional<Packed> packed_by(Node& node) {
  Packed p;
  if (!multiplies_weights(node) || node.operand(2) || node.operand(3)) return std::nullopt;
  p.product = &node;
  const Value* whole = node.result();
  if (Node* add = only_user(whole, "Add")) {
    const Value* other = add->operand(add->operand(1) == whole ? 0 : 1);
    if (!other->weight() || other->type.rank() != 1 || other->type.dims[0] != *last_dim(whole)) return std::nullopt;
    p.bias = other->weight();
    whole = add->result();
  }
  p.open = only_user(whole, "Reshape");
  if (!p.open) return std::nullopt;
  const std::vector<Dim>&flat = whole->type.dims, &dims = p.open->result()->type.dims;
  if (dims.size() <= flat.size() || !std::equal(flat.begin(), flat.end() - 1, dims.begin())) return std::nullopt;
  if (!known_shape({dims.begin() + static_cast<std::ptrdiff_t>(flat.size()) - 1, dims.end()})) return std::nullopt;
  p.transpose = only_user(p.open->result(), "Transpose");
  p.takes = takes_of(p.transpose ? p.transpose->result() : p.open->result());
  if (p.transpose)
    for (Take& take : p.takes) take.dim = static_cast<std::size_t>(p.transpose->attributes.integers("permutation")[take.dim]);
  return !p.takes.empty() && p.takes[0].dim + 1 >= flat.size() ? std::optional(std::move(p)) : std::nullopt;
}

// The columns of a weight [.., columns] that a take leaves, seen as [.., before, n, after].
Value* picked(Graph& graph, const Weight& weight, const Take& take, std::int64_t n, std::int64_t after) {
  Shape shape = weight.recipe->shape;
  const std::int64_t columns = shape.back(), before = columns / (n * after);
  const int last = static_cast<int>(shape.size()) - 1;
  RecipePtr recipe;
  if (before == 1) {
    recipe = Recipe::slice(weight.recipe, last, take.begin * after, take.length * after);
  } else {
    shape.back() = before;
    shape.insert(shape.end(), {n, after});
    recipe = Recipe::slice(Recipe::reshape(weight.recipe, shape), last + 1, take.begin, take.length);
    shape.resize(shape.size() - 2);
    shape.back() = columns / n * take.length;
    recipe = Recipe::reshape(recipe, shape);
  }
  return graph.weight_value(graph.module().add_weight(weight.name, recipe, weight.frozen));
}

// The product of one take, opened and transposed like the whole; a single row leaves no dimension behind.
Value* product_of_take(const Packed& p, const Take& take) {
  std::vector<Dim> dims = p.open->result()->type.dims;
  const std::int64_t n = dims[take.dim].constant();
  std::int64_t after = 1;
  for (std::size_t i = take.dim + 1; i < dims.size(); ++i) after *= dims[i].constant();
  Graph& graph = p.product->graph();
  GraphBuilder builder = builder_before(*take.node);
  std::vector<Value*> operands = p.product->operands();
  for (const std::size_t i : column_operands(*p.product)) operands[i] = picked(graph, *operands[i]->weight(), take, n, after);
  Value* y = builder.add(p.product->op().name, operands, named(p.product->attributes));
  if (p.bias) y = builder.add("Add", {y, picked(graph, *p.bias, take, n, after)});
  y->producer()->note = "a part of a packed product";
  const auto dim = static_cast<std::ptrdiff_t>(take.dim);
  if (take.length == 1) dims.erase(dims.begin() + dim);
  else dims[take.dim] = take.length;
  y = reshape(builder, y, dims);
  if (p.transpose) {
    std::vector<std::int64_t> permutation;
    for (const std::int64_t from : p.transpose->attributes.integers("permutation"))
      if (take.length > 1 || from != dim) permutation.push_back(take.length == 1 && from > dim ? from - 1 : from);
    y = builder.add("Transpose", {y}, {{"permutation", permutation}});
  }
  return reshape(builder, y, take.node->result()->type.dims);
}

bool rewrite(Node& node) {
  const auto packed = packed_by(node);
  if (!packed) return false;
  for (const Take& take : packed->takes) node.graph().replace_uses(take.node->result(), product_of_take(*packed, take));
  return true;
}

}  // namespace

bool split_heads(Module& module, const PassOptions&) { return for_each_node(module, rewrite); }

}  // namespace tandem::passes
