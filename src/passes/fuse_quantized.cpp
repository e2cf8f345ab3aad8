// fuse_quantized: DequantMatMul of DequantizeLinear(codes) becomes QuantMatMul, so that the codes themselves are multiplied.
#include "ops/quantize/operands.h"
#include "passes/match.h"
#include "passes/passes.h"

namespace tandem::passes {
namespace {

// The codes of one scale and no zero point that `value` stands for, through Casts between floats; else null.
Node* dequantize_behind(Value* value) {
  Node* cast = made_by(value, "Cast");
  if (cast && is_float(cast->operand(0)->type.dtype)) value = cast->operand(0);
  Node* dequantize = made_by(value, "DequantizeLinear");
  if (!dequantize || !is_one_number(dequantize->operand(kQuantizeScale)->type)) return nullptr;
  const Value* zero = dequantize->operand(kQuantizeZero);
  return zero && number_of(zero) != 0.0 ? nullptr : dequantize;
}

bool rewrite(Node& node) {
  if (!node.is("DequantMatMul") || node.attributes.integer("block_size") != 0 || node.operand(kDequantZero)) return false;
  Node* dequantize = dequantize_behind(node.operand(kDequantA));
  if (!dequantize) return false;
  Value *a = dequantize->operand(kQuantizeX), *b = node.operand(kDequantB);
  const auto is_small_float = [](DType type) { return is_float(type) && is_quantized(type); };
  const DType x = a->type.dtype, w = b->type.dtype;
  if (!(x == DType::i8 && w == DType::i8) && !(is_small_float(x) && is_small_float(w))) return false;
  std::vector<Value*> operands = node.operands();
  operands.resize(kQuantScaleA + 1, nullptr);
  operands[kDequantA] = a;
  operands[kQuantScaleA] = dequantize->operand(kQuantizeScale);
  const NamedAttributes attributes = {{"activation", node.attributes.text("activation")}, {"to", node.result()->type.dtype}};
  Value* y = builder_before(node).add("QuantMatMul", operands, attributes);
  y->producer()->note = "codes are multiplied";
  node.graph().replace_uses(node.result(), y);
  return true;
}

}  // namespace

bool fuse_quantized(Module& module, const PassOptions&) { return for_each_node(module, rewrite); }

}  // namespace tandem::passes
