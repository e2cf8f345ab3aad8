// Ops of one operand whose result has its shape.
#include "ops/ops.h"
#include "ops/pointwise/define.h"
#include "ops/pointwise/dim_rules.h"
#include "ops/pointwise/scalar.h"

namespace tandem::ops {
namespace {

using namespace pointwise;

template <const Takes& T, bool kBoolean>
std::vector<Type> infer(const OpCall& call) {
  require_dtype(call, 0, T.allowed, T.expected);
  Type result = call.operand(0);
  if (kBoolean) result.dtype = DType::boolean;
  return {result};
}

template <auto F, const Takes& T = kFloats, bool kBoolean = false>
OpDef unary(std::string_view name, std::string_view doc) {
  return {
      .name = name,
      .doc = doc,
      .operands = {{"x"}},
      .min_operands = 1,
      .max_operands = 1,
      .infer = infer<T, kBoolean>,
      .rule = pointwise_rule,
      .evaluate = evaluate_unary<F>,
      .onnx = {{name, 1, import_unary}},
      .pointwise = true,
  };
}

OpDef with_fold(OpDef op, std::optional<DimContent> (*fold)(const OpCall&, std::span<const std::optional<DimContent>>)) {
  op.fold = fold;
  return op;
}

OpDef with_fields(OpDef op, std::vector<Field> fields, decltype(OnnxRule::import) import) {
  op.fields = std::move(fields);
  op.onnx[0].import = import;
  return op;
}

OpDef linear(OpDef op) {
  op.rule = linear_unary_rule;
  return op;
}

OpDef import_as(OpDef op, std::vector<OnnxRule> rules) {
  op.onnx = std::move(rules);
  return op;
}

auto infinite(const Attributes& attributes) {
  return [negative = attributes.boolean("negative"), positive = attributes.boolean("positive")](double x) {
    return std::isinf(x) && (x < 0 ? negative : positive);
  };
}

std::vector<Value*> import_is_inf(const ForeignNode& node, GraphBuilder& builder) {
  const bool negative = node.integer("detect_negative", 1) != 0, positive = node.integer("detect_positive", 1) != 0;
  return {builder.add("IsInf", {node.required(0)}, {{"negative", negative}, {"positive", positive}})};
}

std::vector<Value*> import_swish(const ForeignNode& node, GraphBuilder& builder) {
  Value* x = node.required(0);
  const double alpha = node.real("alpha", 1);
  if (alpha == 1) return {builder.add("Silu", {x})};
  Value* gate = builder.add("Sigmoid", {builder.add("Mul", {x, builder.scalar(x->type.dtype, alpha)})});
  return {builder.add("Mul", {x, gate})};
}

std::vector<Value*> import_gelu(const ForeignNode& node, GraphBuilder& builder) {
  return {builder.add("Gelu", {node.required(0)}, {{"approximate", node.text("approximate", "none")}})};
}

}  // namespace

const OpDef Abs = with_fold(unary<[](Number auto x) { return x < 0 ? scalar::negate(x) : x; }, kNumbers>("Abs", "y = |x|."),
                            dim_rules::fold<dim_rules::absolute>);
const OpDef Ceil = unary<[](double x) { return std::ceil(x); }>("Ceil", "y = the smallest whole number that is at least x.");
const OpDef Cos = unary<[](double x) { return std::cos(x); }>("Cos", "y = cos x.");
const OpDef Elu = with_fields(
    unary<[](const Attributes& a) { return [alpha = a.real("alpha")](double x) { return x < 0 ? alpha * std::expm1(x) : x; }; }>(
        "Elu", "y = x where x > 0, else alpha·(exp x − 1)."),
    {{"alpha", FieldKind::real, 1.0, {}, "limit for large negative x, negated"}}, [](const ForeignNode& n, GraphBuilder& b) {
      return std::vector{b.add("Elu", {n.required(0)}, {{"alpha", n.real("alpha", 1)}})};
    });
const OpDef Erf = unary<[](double x) { return std::erf(x); }>("Erf", "y = erf x, the error function.");
const OpDef Exp = unary<[](double x) { return std::exp(x); }>("Exp", "y = exp x.");
const OpDef Floor = unary<[](double x) { return std::floor(x); }>("Floor", "y = the largest whole number that is at most x.");
const OpDef Gelu = import_as(
    with_fields(unary<[](const Attributes& a) { return a.text("approximate") == "tanh" ? scalar::gelu_tanh : scalar::gelu; }>(
                    "Gelu", "y = x·Φ(x), Φ the normal distribution; or its approximation x/2·(1 + tanh(√(2/π)·(x + 0.044715·x³)))."),
                {{"approximate", FieldKind::text, std::string("none"), {"none", "tanh"}, "which of the two"}}, import_gelu),
    {{"Gelu", 20, import_gelu}, {"Gelu", 1, import_gelu, "com.microsoft"}});
const OpDef HardSigmoid = with_fields(
    unary<[](const Attributes& a) {
      return [alpha = a.real("alpha"), beta = a.real("beta")](double x) {
        return scalar::larger(0.0, scalar::smaller(1.0, alpha * x + beta));
      };
    }>("HardSigmoid", "y = max(0, min(1, alpha·x + beta))."),
    {{"alpha", FieldKind::real, 0.2, {}, "slope"}, {"beta", FieldKind::real, 0.5, {}, "value at 0"}},
    [](const ForeignNode& n, GraphBuilder& b) {
      return std::vector{b.add("HardSigmoid", {n.required(0)}, {{"alpha", n.real("alpha", 0.2)}, {"beta", n.real("beta", 0.5)}})};
    });
const OpDef HardSwish = unary<[](double x) { return x * scalar::larger(0.0, scalar::smaller(1.0, x / 6 + 0.5)); }>(
    "HardSwish", "y = x·max(0, min(1, x/6 + 1/2)).");
const OpDef IsInf = with_fields(
    unary<infinite, kFloats, true>("IsInf", "y = whether x is infinite, of a sign that is asked for."),
    {{"negative", FieldKind::boolean, true, {}, "whether −∞ counts"}, {"positive", FieldKind::boolean, true, {}, "whether +∞ counts"}},
    import_is_inf);
const OpDef IsNaN = unary<[](double x) { return std::isnan(x); }, kFloats, true>("IsNaN", "y = whether x is not a number.");
const OpDef LeakyRelu =
    with_fields(unary<[](const Attributes& a) { return [alpha = a.real("alpha")](double x) { return x < 0 ? alpha * x : x; }; }>(
                    "LeakyRelu", "y = x where x ≥ 0, else alpha·x."),
                {{"alpha", FieldKind::real, 0.01, {}, "slope where x < 0"}}, [](const ForeignNode& n, GraphBuilder& b) {
                  return std::vector{b.add("LeakyRelu", {n.required(0)}, {{"alpha", n.real("alpha", 0.01)}})};
                });
const OpDef Log = unary<[](double x) { return std::log(x); }>("Log", "y = ln x.");
const OpDef Neg = with_fold(linear(unary<[](Number auto x) { return scalar::negate(x); }, kNumbers>("Neg", "y = −x; integers wrap.")),
                            dim_rules::fold<dim_rules::negative>);
const OpDef Not =
    with_fold(unary<[](double x) { return x == 0; }, kBooleans, true>("Not", "y = not x."), dim_rules::fold<dim_rules::negated>);
const OpDef Reciprocal = unary<[](double x) { return 1 / x; }>("Reciprocal", "y = 1/x.");
const OpDef Relu = unary<[](Number auto x) { return x < 0 ? 0 : x; }, kNumbers>("Relu", "y = max(0, x).");
const OpDef Round = unary<[](double x) { return std::nearbyint(x); }>("Round", "y = the nearest whole number, the even one of two.");
const OpDef Sigmoid = unary<scalar::sigmoid>("Sigmoid", "y = 1/(1 + exp(−x)).");
const OpDef Sign = with_fold(unary<[](Number auto x) { return x != x ? x : static_cast<decltype(x)>((0 < x) - (x < 0)); }, kNumbers>(
                                 "Sign", "y = −1, 0 or 1, the sign of x."),
                             dim_rules::fold<dim_rules::sign>);
const OpDef Silu = import_as(unary<scalar::silu>("Silu", "y = x/(1 + exp(−x))."), {{"Swish", 24, import_swish}});
const OpDef Sin = unary<[](double x) { return std::sin(x); }>("Sin", "y = sin x.");
const OpDef Softplus = unary<scalar::softplus>("Softplus", "y = ln(1 + exp x).");
const OpDef Sqrt = unary<[](double x) { return std::sqrt(x); }>("Sqrt", "y = √x.");
const OpDef Tanh = unary<[](double x) { return std::tanh(x); }>("Tanh", "y = tanh x.");

}  // namespace tandem::ops
