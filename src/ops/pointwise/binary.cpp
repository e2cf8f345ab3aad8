// Ops of two operands under numpy broadcasting.
#include "ops/ops.h"
#include "ops/pointwise/define.h"
#include "ops/pointwise/dim_rules.h"
#include "ops/pointwise/scalar.h"

namespace tandem::ops {
namespace {

using namespace pointwise;
using namespace dim_rules;

using Fold = std::optional<DimContent> (*)(const OpCall&, std::span<const std::optional<DimContent>>);

template <const Takes& T, bool kBoolean>
std::vector<Type> infer(const OpCall& call) {
  const DType dtype = same_dtype(call);
  require_dtype(call, 0, T.allowed, T.expected);
  return {{kBoolean ? DType::boolean : dtype, broadcast_dims(call.operand(0).dims, call.operand(1).dims).dims}};
}

template <auto F, const Takes& T, bool kBoolean = false>
OpDef binary(std::string_view name, std::string_view doc, Fold rule = nullptr) {
  return {
      .name = name,
      .doc = doc,
      .operands = {{"a"}, {"b"}},
      .min_operands = 2,
      .max_operands = 2,
      .infer = infer<T, kBoolean>,
      .rule = pointwise_rule,
      .evaluate = evaluate_binary<F>,
      .fold = rule,
      .onnx = {{name, 7, import_binary}},
      .pointwise = true,
  };
}

template <auto F>
OpDef comparison(std::string_view name, std::string_view doc, Fold rule) {
  return binary<F, kNumbers, true>(name, doc, rule);
}

OpDef with_rule(OpDef op, ShardingRule (*rule)(const OpCall&)) {
  op.rule = rule;
  return op;
}

OpDef with_imports(OpDef op, std::vector<OnnxRule> rules) {
  op.onnx = std::move(rules);
  return op;
}

OpDef with_fields(OpDef op, std::vector<Field> fields) {
  op.fields = std::move(fields);
  return op;
}

// ONNX allows an exponent of another type.
std::vector<Value*> import_pow(const ForeignNode& node, GraphBuilder& builder) {
  Value *base = node.required(0), *exponent = node.required(1);
  if (base->type.dtype != exponent->type.dtype) exponent = builder.add("Cast", {exponent}, {{"to", base->type.dtype}});
  return {add_broadcast(builder, "Pow", base, exponent)};
}

std::vector<Value*> import_mod(const ForeignNode& node, GraphBuilder& builder) {
  return {add_broadcast(builder, "Mod", node.required(0), node.required(1), {{"fmod", node.integer("fmod", 0) != 0}})};
}

// Bounds are inputs since opset 11, attributes before.
std::vector<Value*> import_clip(const ForeignNode& node, GraphBuilder& builder) {
  Value* x = node.required(0);
  const auto bound = [&](std::size_t input, const char* attribute) -> Value* {
    if (node.opset >= 11) return node.input(input);
    return node.has(attribute) ? builder.scalar(x->type.dtype, node.real(attribute, 0)) : nullptr;
  };
  if (Value* low = bound(1, "min")) x = builder.add("Max", {x, low});
  if (Value* high = bound(2, "max")) x = builder.add("Min", {x, high});
  return {x};
}

auto mod_formula(const Attributes& attributes) {
  return [as_in_c = attributes.boolean("fmod")](auto a, auto b) {
    return as_in_c ? scalar::remainder_of_dividend(a, b) : scalar::remainder_of_divisor(a, b);
  };
}

// C's remainder is Python's where nothing is negative.
std::optional<DimContent> fold_mod(const OpCall& call, std::span<const std::optional<DimContent>> contents) {
  if (!call.attributes.boolean("fmod")) return fold<modulo>(call, contents);
  return fold<[](const Dim& a, const Dim& b) { return a.bounds({}).min >= 0 && b.bounds({}).min >= 0 ? modulo(a, b) : std::nullopt; }>(
      call, contents);
}

ShardingRule rule_mul(const OpCall& call) {
  ShardingRule rule = pointwise_rule(call);
  rule.linear = {true, true};
  return rule;
}

// Blocks may end in padding, which is zeros: where integers are divided by it that is an error.
ShardingRule whole_divisor(const OpCall& call, ShardingRule rule) {
  if (is_float(call.operand(0).dtype)) return rule;
  for (const ShardingRule::DimFactors& dim : rule.operands.at(1))
    for (const int factor : dim) rule.factors[static_cast<std::size_t>(factor)].role = ShardingRule::Role::whole;
  return rule;
}

ShardingRule rule_div(const OpCall& call) {
  ShardingRule rule = pointwise_rule(call);
  rule.linear = {is_float(call.operand(0).dtype), false};  // integers truncate
  return whole_divisor(call, std::move(rule));
}

ShardingRule rule_mod(const OpCall& call) { return whole_divisor(call, pointwise_rule(call)); }

}  // namespace

const OpDef Add = with_imports(
    binary<[](Number auto a, Number auto b) { return scalar::plus(a, b); }, kNumbers>("Add", "y = a + b; integers wrap.", fold<plus>),
    {{"Add", 7, import_binary}, {"Sum", 8, [](const ForeignNode& n, GraphBuilder& b) { return import_chain("Add", n, b); }}});
const OpDef And =
    binary<[](Number auto a, Number auto b) { return a != 0 && b != 0; }, kBooleans, true>("And", "y = a and b.", fold<times>);
const OpDef Div = with_rule(binary<[](Number auto a, Number auto b) { return scalar::divide(a, b); }, kNumbers>(
                                "Div", "y = a/b; integers truncate toward zero.", fold<divide>),
                            rule_div);
const OpDef Equal =
    binary<[](Number auto a, Number auto b) { return a == b; }, kAnything, true>("Equal", "y = whether a = b.", fold<dim_rules::equal>);
const OpDef Greater = comparison<[](Number auto a, Number auto b) { return b < a; }>("Greater", "y = whether a > b.", fold<greater>);
const OpDef GreaterOrEqual =
    comparison<[](Number auto a, Number auto b) { return b <= a; }>("GreaterOrEqual", "y = whether a ≥ b.", fold<greater_or_equal>);
const OpDef Less = comparison<[](Number auto a, Number auto b) { return a < b; }>("Less", "y = whether a < b.", fold<less>);
const OpDef LessOrEqual =
    comparison<[](Number auto a, Number auto b) { return a <= b; }>("LessOrEqual", "y = whether a ≤ b.", fold<less_or_equal>);
const OpDef Max =
    with_imports(binary<[](Number auto a, Number auto b) { return scalar::larger(a, b); }, kNumbers>(
                     "Max", "y = the larger of a and b; NaN if one is NaN.", fold<larger>),
                 {{"Max", 8, [](const ForeignNode& n, GraphBuilder& b) { return import_chain("Max", n, b); }}, {"Clip", 6, import_clip}});
const OpDef Min = with_imports(binary<[](Number auto a, Number auto b) { return scalar::smaller(a, b); }, kNumbers>(
                                   "Min", "y = the smaller of a and b; NaN if one is NaN.", fold<smaller>),
                               {{"Min", 8, [](const ForeignNode& n, GraphBuilder& b) { return import_chain("Min", n, b); }}});
const OpDef Mod = with_rule(
    with_imports(
        with_fields(binary<mod_formula, kNumbers>("Mod", "y = the remainder of a/b, with the sign of b, or with fmod that of a.", fold_mod),
                    {{"fmod", FieldKind::boolean, false, {}, "whether the result has the sign of the dividend, not of the divisor"}}),
        {{"Mod", 10, import_mod}}),
    rule_mod);
const OpDef Mul = with_rule(
    binary<[](Number auto a, Number auto b) { return scalar::times(a, b); }, kNumbers>("Mul", "y = a·b; integers wrap.", fold<times>),
    rule_mul);
const OpDef Or = binary<[](Number auto a, Number auto b) { return a != 0 || b != 0; }, kBooleans, true>("Or", "y = a or b.", fold<either>);
const OpDef Pow = with_imports(
    binary<[](Number auto a, Number auto b) { return scalar::power(a, b); }, kNumbers>("Pow", "y = a to the power b; integers wrap."),
    {{"Pow", 7, import_pow}});
const OpDef Sub =
    binary<[](Number auto a, Number auto b) { return scalar::minus(a, b); }, kNumbers>("Sub", "y = a − b; integers wrap.", fold<minus>);
const OpDef Xor = binary<[](Number auto a, Number auto b) { return (a != 0) != (b != 0); }, kBooleans, true>(
    "Xor", "y = either a or b, not both.", fold<one_only>);

}  // namespace tandem::ops
