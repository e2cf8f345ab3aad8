// fuse_dequantize: x · DequantizeLinear(w), also with w transposed behind it, becomes DequantMatMul, so that w stays as small as it is.
#include "ops/quantize/operands.h"
#include "passes/match.h"
#include "passes/passes.h"

namespace tandem::passes {
namespace {

Value* transposed(GraphBuilder& builder, Value* matrix) {
  const std::vector<std::int64_t> permutation = {1, 0};
  if (!matrix->weight()) return builder.add("Transpose", {matrix}, {{"permutation", permutation}});
  const Weight& weight = *matrix->weight();
  const RecipePtr recipe = Recipe::transpose(weight.recipe, permutation);
  return builder.graph().weight_value(builder.module().add_weight(weight.name, recipe, weight.frozen));
}

// Rows of w that share a scale, 0 for all of them; nothing where columns share scales that rows do not.
std::optional<std::int64_t> block_of(const Node& dequantize, bool flipped) {
  const Type &w = dequantize.operand(kQuantizeX)->type, &scale = dequantize.operand(kQuantizeScale)->type;
  if (is_one_number(scale)) return 0;
  const bool rows = normalize_axis(dequantize.attributes.integer("axis"), w.rank()) == (flipped ? 1 : 0);
  if (scale.rank() == 1) return rows ? std::nullopt : std::optional<std::int64_t>(0);
  return rows ? std::optional(dequantize.attributes.integer("block_size")) : std::nullopt;
}

// A zero point per column is looked at as a whole, unless a refit may change it.
bool is_zero(const Value* value) {
  if (number_of(value) == 0.0) return true;
  constexpr std::int64_t kMostColumns = 1 << 20;
  if (value->weight() && value->graph().module().refittable) return false;
  const auto known = constant_of(value, kMostColumns);
  for (std::int64_t i = 0; known && i < known->count(); ++i)
    if (known->at(i) != 0) return false;
  return known.has_value();
}

bool rewrite(Node& node) {
  if (!node.is("MatMul") || node.operands().size() > 2) return false;
  Value* b = node.operand(1);
  if (Node* cast = made_by(b, "Cast"); cast && is_float(cast->operand(0)->type.dtype)) b = cast->operand(0);
  Node* transpose = made_by(b, "Transpose");
  if (transpose) b = transpose->operand(0);
  Node* dequantize = made_by(b, "DequantizeLinear");
  if (!dequantize || b->type.rank() != 2) return false;
  Value *w = dequantize->operand(kQuantizeX), *scale = dequantize->operand(kQuantizeScale), *zero = dequantize->operand(kQuantizeZero);
  const auto block = block_of(*dequantize, transpose != nullptr);
  if (!block || !is_quantized(w->type.dtype) || bits(w->type.dtype) > 8) return false;
  if (!w->weight() && !made_by(w, "Constant")) return false;  // what is computed is not read more than once
  if (zero && is_zero(zero)) zero = nullptr;
  GraphBuilder builder = builder_before(node);
  if (transpose) {
    w = transposed(builder, w);
    if (*block != 0) scale = transposed(builder, scale);
    if (*block != 0 && zero) zero = transposed(builder, zero);
  }
  std::vector<Value*> operands = {node.operand(0), w, nullptr, nullptr, scale};
  if (zero) operands.push_back(zero);
  Value* y = builder.add("DequantMatMul", operands, {{"activation", node.attributes.text("activation")}, {"block_size", *block}});
  y->producer()->note = "weights stay quantised";
  node.graph().replace_uses(node.result(), y);
  return true;
}

}  // namespace

bool fuse_dequantize(Module& module, const PassOptions&) { return for_each_node(module, rewrite); }

}  // namespace tandem::passes
