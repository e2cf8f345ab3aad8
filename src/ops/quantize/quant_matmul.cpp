// QuantMatMul: a product of quantised activations with a quantised matrix of weights.
#include "core/check.h"
#include "core/tensor.h"
#include "ops/ops.h"
#include "ops/quantize/operands.h"
#include "ops/shape_rules.h"

namespace tandem::ops {
namespace {

DType result_type(const OpCall& call) { return call.attributes.get<DType>("to"); }

// The product of what the codes stand for, in `type`.
OpCall product_of(const OpCall& call, DType type) {
  OpCall product{&MatMul, Attributes(&MatMul.fields), {}, call.results};
  product.attributes.set("activation", call.attributes.text("activation"));
  product.operands = {Type{type, call.operand(kDequantA).dims}, Type{type, call.operand(kDequantB).dims}};
  for (const std::size_t i : {kDequantBias, kDequantResidual})
    product.operands.push_back(i < call.operands.size() ? call.operands[i] : std::nullopt);
  return product;
}

void require_codes(const OpCall& call) {
  const DType a = call.operand(kDequantA).dtype, b = call.operand(kDequantB).dtype;
  const auto is_small_float = [](DType type) { return is_float(type) && is_quantized(type); };
  if ((a == DType::i8 && b == DType::i8) || (is_small_float(a) && is_small_float(b))) return;
  fail(ErrorCode::invalid_model, "{} is multiplied by {}, expected i8 by i8 or 8-bit floats by such", to_string(a), to_string(b));
}

std::vector<Type> infer(const OpCall& call) {
  require_rank(call, kDequantB, 2, 2);
  require_codes(call);
  for (const std::size_t i : {kDequantScale, kQuantScaleA})
    if (!call.has_operand(i)) fail(ErrorCode::invalid_model, "the scale of {} is missing", i == kDequantScale ? "b" : "a");
  check_scales(call.operand(kDequantB), call.operand(kDequantScale), nullptr, 1, 0);
  const Type& scale = call.operand(kQuantScaleA);
  if (!is_float(scale.dtype) || !is_one_number(scale))
    fail(ErrorCode::invalid_model, "the scale of a is {}, expected one float", scale.to_string());
  const DType to = result_type(call);
  if (!is_float(to) || is_quantized(to)) fail(ErrorCode::invalid_model, "it gives no {}", to_string(to));
  return MatMul.infer(product_of(call, to));
}

ShardingRule rule(const OpCall& call) {
  ShardingRule rule = MatMul.rule(product_of(call, result_type(call)));
  const ShardingRule::DimFactors n = rule.operands[kDequantB].at(1);
  rule.operands.resize(call.operands.size());
  rule.operands[kQuantScaleA].resize(call.operand(kQuantScaleA).dims.size());
  const Type& scale = call.operand(kDequantScale);
  rule.operands[kDequantScale].resize(scale.dims.size());
  if (!is_one_number(scale)) rule.operands[kDequantScale].back() = n;
  rule.linear.assign(call.operands.size(), false);
  return rule;
}

std::vector<Tensor> evaluate(const OpCall& call, std::span<const Tensor> in) {
  const auto dequantized = [&](std::size_t operand, std::size_t scale) {
    OpCall of{&DequantizeLinear, Attributes(&DequantizeLinear.fields), {call.operand(operand), call.operand(scale)}, {}};
    of.attributes.set("to", DType::f64);
    of.results = DequantizeLinear.infer(of);
    return DequantizeLinear.evaluate(of, std::vector<Tensor>{in[operand], in[scale]})[0];
  };
  std::vector<Tensor> operands(in.begin(), in.begin() + kDequantScale);
  operands[kDequantA] = dequantized(kDequantA, kQuantScaleA);
  operands[kDequantB] = dequantized(kDequantB, kDequantScale);
  return {MatMul.evaluate(product_of(call, DType::f64), operands)[0].converted(result_type(call))};
}

}  // namespace

const OpDef QuantMatMul = {
    .name = "QuantMatMul",
    .doc =
        "y[…,m,n] = activation(Σₖ a[…,m,k]·b[k,n]·a_scale·scale[n] + bias[n]) + residual[…,m,n], a and b being quantised, both i8 or "
        "both 8-bit floats; made by a pass from DequantizeLinear and MatMul.",
    .fields = {{"activation",
                FieldKind::text,
                std::string("none"),
                {"none", "gelu", "gelu_tanh", "silu", "relu", "tanh", "sigmoid"},
                "applied before the residual is added"},
               {"to", FieldKind::dtype, DType::f32, {}, "dtype of the result, of bias and residual"}},
    .operands = {{"a"},
                 {"b"},
                 {"bias", "[n]"},
                 {"residual", "the result's shape"},
                 {"scale", "of b, always given: one, or [n]"},
                 {"a_scale", "always given: one number"}},
    .min_operands = 2,
    .max_operands = 6,
    .infer = infer,
    .rule = rule,
    .evaluate = evaluate,
};

}  // namespace tandem::ops
