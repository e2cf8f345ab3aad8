// fold_weights: steps that only move or cast the elements of weights become part of their recipes, so that they cost
// nothing at run time, and a refit still finds the tensor of the imported model.
#include <algorithm>

#include "ops/shape_rules.h"
#include "passes/match.h"
#include "passes/passes.h"

namespace tandem::passes {
namespace {

RecipePtr recipe_of(const Value* value) { return value && value->weight() ? value->weight()->recipe : nullptr; }

std::optional<std::int64_t> clamped(const Dim& at, std::int64_t extent) {
  if (!at.is_constant()) return std::nullopt;
  const std::int64_t from_start = at.constant() < 0 ? at.constant() + extent : at.constant();
  return std::clamp<std::int64_t>(from_start, 0, extent);
}

RecipePtr sliced(const Node& node, RecipePtr recipe) {
  for (std::int64_t step : node.attributes.integers("steps"))
    if (step != 1) return nullptr;
  const auto& axes = node.attributes.integers("axes");
  for (std::size_t i = 0; i < axes.size(); ++i) {
    const int axis = normalize_axis(axes[i], static_cast<int>(recipe->shape.size()));
    const std::int64_t extent = recipe->shape[static_cast<std::size_t>(axis)];
    const auto begin = clamped(node.attributes.dims("starts").at(i), extent), end = clamped(node.attributes.dims("ends").at(i), extent);
    if (!begin || !end) return nullptr;
    recipe = Recipe::slice(recipe, axis, *begin, std::max<std::int64_t>(0, *end - *begin));
  }
  return recipe;
}

// Rows of zeros behind the others.
RecipePtr padded(const Node& node, RecipePtr recipe) {
  if (node.attributes.text("mode") != "constant" || node.attributes.real("value") != 0) return nullptr;
  const auto& pads = node.attributes.dims("pads");
  const std::size_t rank = recipe->shape.size();
  for (std::size_t axis = 0; axis < rank; ++axis) {
    const Dim &before = pads.at(axis), &after = pads.at(axis + rank);
    if (before != Dim(0) || !after.is_constant() || after.constant() < 0) return nullptr;
    if (after != Dim(0)) recipe = Recipe::pad(recipe, static_cast<int>(axis), recipe->shape[axis] + after.constant());
  }
  return recipe;
}

RecipePtr concatenated(const Node& node) {
  std::vector<RecipePtr> parts;
  for (const Value* v : node.operands()) {
    if (!recipe_of(v)) return nullptr;
    parts.push_back(recipe_of(v));
  }
  return Recipe::concat(parts, normalize_axis(node.attributes.integer("axis"), node.result()->type.rank()));
}

RecipePtr moved(const Node& node) {
  if (node.is("Concat")) return concatenated(node);
  const RecipePtr recipe = node.operands().empty() ? nullptr : recipe_of(node.operand(0));
  if (!recipe) return nullptr;
  if (node.is("Transpose")) return Recipe::transpose(recipe, node.attributes.integers("permutation"));
  const DType dtype = node.result()->type.dtype;
  if (node.is("Cast") && is_float(recipe->dtype) && is_float(dtype)) return Recipe::cast(recipe, dtype);
  if (node.is("Slice")) return sliced(node, recipe);
  if (node.is("Pad")) return padded(node, recipe);
  if (!node.is("Reshape")) return nullptr;
  const auto shape = known_shape(node.result()->type.dims);
  return shape ? Recipe::reshape(recipe, *shape) : nullptr;
}

bool rewrite(Node& node) {
  const RecipePtr recipe = moved(node);
  const Type& type = node.result()->type;
  if (!recipe || known_shape(type.dims) != std::optional(recipe->shape) || recipe->dtype != type.dtype) return false;
  const Weight& first = *node.operand(0)->weight();
  bool frozen = false;
  for (const Value* v : node.operands()) frozen |= v->weight()->frozen;
  const Weight& weight = node.graph().module().add_weight(first.name, recipe, frozen);
  node.graph().replace_uses(node.result(), node.graph().weight_value(weight));
  return true;
}

}  // namespace

bool fold_weights(Module& module, const PassOptions&) { return for_each_node(module, rewrite); }

}  // namespace tandem::passes
