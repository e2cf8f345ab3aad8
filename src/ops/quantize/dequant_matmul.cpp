// DequantMatMul: a product with a quantised matrix of weights.
#include "core/check.h"
#include "core/tensor.h"
#include "ops/ops.h"
#include "ops/quantize/operands.h"
#include "ops/shape_rules.h"

namespace tandem::ops {
namespace {

// The product of a and the dequantised b, with bias and residual.
OpCall product_of(const OpCall& call, DType b) {
  OpCall product{&MatMul, Attributes(&MatMul.fields), {}, call.results};
  product.attributes.set("activation", call.attributes.text("activation"));
  product.operands = {call.operand(kDequantA), Type{b, call.operand(kDequantB).dims}};
  for (const std::size_t i : {kDequantBias, kDequantResidual})
    product.operands.push_back(i < call.operands.size() ? call.operands[i] : std::nullopt);
  return product;
}

OpCall dequantize_of(const OpCall& call, DType to) {
  OpCall call_of_b{&DequantizeLinear, Attributes(&DequantizeLinear.fields), {call.operand(kDequantB), call.operand(kDequantScale)}, {}};
  if (call.has_operand(kDequantZero)) call_of_b.operands.push_back(call.operand(kDequantZero));
  const std::int64_t block = call.attributes.integer("block_size");
  call_of_b.attributes.set("axis", std::int64_t{block != 0 ? 0 : 1});
  call_of_b.attributes.set("block_size", block);
  call_of_b.attributes.set("to", to);
  call_of_b.results = DequantizeLinear.infer(call_of_b);
  return call_of_b;
}

std::vector<Type> infer(const OpCall& call) {
  require_rank(call, kDequantB, 2, 2);
  if (!call.has_operand(kDequantScale)) fail(ErrorCode::invalid_model, "the scale of b is missing");
  dequantize_of(call, DType::f32);
  const OpCall product = product_of(call, call.operand(kDequantA).dtype);
  require_dtype(product, kDequantA, is_float, "a float type");
  return MatMul.infer(product);
}

// Of the product, with k cut into blocks: a border between ranks never lies inside one.
ShardingRule rule(const OpCall& call) {
  const OpCall product = product_of(call, call.operand(kDequantA).dtype);
  ShardingRule rule = MatMul.rule(product);
  const ShardingRule::DimFactors k = rule.operands[kDequantB].at(0), n = rule.operands[kDequantB].at(1);
  const std::int64_t block = call.attributes.integer("block_size");
  ShardingRule::DimFactors blocks;
  if (block != 0 && !k.empty()) {
    ShardingRule::RuleFactor& factor = rule.factors.at(static_cast<std::size_t>(k[0]));
    const auto count = factor.size.exact_divide(block);
    if (count) {
      factor.size = *count;
      const int inside = rule.add(block, ShardingRule::Role::whole);
      rule.operands[kDequantA].back().push_back(inside);
      rule.operands[kDequantB][0].push_back(inside);
      blocks = k;
    } else {
      factor.role = ShardingRule::Role::whole;
      blocks = {rule.add(ceil_div(factor.size, block), ShardingRule::Role::whole)};
    }
  }
  rule.operands.resize(call.operands.size());
  for (const std::size_t i : {kDequantScale, kDequantZero}) {
    if (!call.has_operand(i)) continue;
    const Type& scale = call.operand(i);
    const bool one = is_one_number(scale);
    rule.operands[i].resize(scale.dims.size());
    if (!one) rule.operands[i].back() = n;
    if (!one && block != 0) rule.operands[i].front() = blocks;
  }
  rule.linear.resize(call.operands.size(), false);
  if (call.operands.size() > kDequantB) rule.linear[kDequantB] = false;
  return rule;
}

std::vector<Tensor> evaluate(const OpCall& call, std::span<const Tensor> in) {
  std::vector<Tensor> quantized = {in[kDequantB], in[kDequantScale]};
  if (call.has_operand(kDequantZero)) quantized.push_back(in[kDequantZero]);
  const Tensor b = DequantizeLinear.evaluate(dequantize_of(call, DType::f64), quantized)[0];
  std::vector<Tensor> operands(in.begin(), in.begin() + std::min<std::ptrdiff_t>(4, static_cast<std::ptrdiff_t>(in.size())));
  operands.resize(4);
  operands[kDequantB] = b;
  return MatMul.evaluate(product_of(call, DType::f64), operands);
}

}  // namespace

const OpDef DequantMatMul = {
    .name = "DequantMatMul",
    .doc =
        "y[…,m,n] = activation(Σₖ a[…,m,k]·(b[k,n] - zero_point)·scale + bias[n]) + residual[…,m,n], b being quantised; "
        "made by a pass from DequantizeLinear and MatMul.",
    .fields = {{"activation",
                FieldKind::text,
                std::string("none"),
                {"none", "gelu", "gelu_tanh", "silu", "relu", "tanh", "sigmoid"},
                "applied before the residual is added"},
               {"block_size", FieldKind::integer, std::int64_t{0}, {}, "rows of b that share a scale; 0: all"}},
    .operands = {{"a"},
                 {"b"},
                 {"bias", "[n]"},
                 {"residual", "the result's shape"},
                 {"scale", "always given: one, [n], or [⌈k/block_size⌉,n]"},
                 {"zero_point", "like the scale"}},
    .min_operands = 2,
    .max_operands = 6,
    .infer = infer,
    .rule = rule,
    .evaluate = evaluate,
};

}  // namespace tandem::ops
