// The op Custom: stands for every op of the user's own.
#include "core/check.h"
#include "graph/builder.h"
#include "graph/graph.h"
#include "ops/custom/registry.h"
#include "ops/ops.h"

namespace tandem {
namespace {

CustomType to_custom(const Type& type) {
  CustomType out{type.dtype, {}};
  for (const Dim& dim : type.dims) out.shape.push_back(dim.to_string());
  return out;
}

Type from_custom(const CustomType& type) {
  Type out{type.dtype, {}};
  for (const std::string& extent : type.shape) out.dims.push_back(Dim::parse(extent));
  return out;
}

std::vector<Type> infer(const OpCall& call) {
  const CustomOp& op = custom_op_of(call);
  if (!op.infer) return {call.operand(0)};
  std::vector<CustomType> operands;
  for (const auto& operand : call.operands) operands.push_back(operand ? to_custom(*operand) : CustomType());
  std::vector<Type> results;
  for (const CustomType& type : op.infer(operands, custom_attributes(call.attributes.text("attributes"))))
    results.push_back(from_custom(type));
  if (results.empty()) fail(ErrorCode::invalid_model, "op '{}' infers no result", call.attributes.text("op"));
  return results;
}

ShardingRule rule(const OpCall& call) {
  const CustomOp& op = custom_op_of(call);
  return op.sharding.empty() ? whole_rule(call) : rule_from_formula(op.sharding, call);
}

// Attributes of kinds that no custom op can read are refused, not lost.
CustomAttributes read_attributes(const ForeignNode& node) {
  std::map<std::string, CustomAttributes::Value> values;
  for (const auto& [name, value] : node.attributes) {
    if (name.find_first_of(" \n") != std::string::npos) fail(ErrorCode::unsupported, "an attribute is called '{}'", name);
    if (const auto* integer = std::get_if<std::int64_t>(&value)) values[name] = *integer;
    else if (const auto* real = std::get_if<double>(&value)) values[name] = *real;
    else if (const auto* text = std::get_if<std::string>(&value)) values[name] = *text;
    else if (const auto* integers = std::get_if<std::vector<std::int64_t>>(&value)) values[name] = *integers;
    else if (const auto* reals = std::get_if<std::vector<double>>(&value)) values[name] = *reals;
    else fail(ErrorCode::unsupported, "attribute '{}' is neither a number, text nor a list of numbers", name);
  }
  return CustomAttributes(std::move(values));
}

std::vector<Value*> import_custom(const ForeignNode& node, GraphBuilder& builder) {
  return builder.add_all("Custom", node.inputs,
                         {{"op", node.domain + "::" + node.op_type}, {"attributes", to_text(read_attributes(node))}});
}

}  // namespace

const OnnxRule& custom_rule() {
  static const OnnxRule rule{.op_type = "*", .since = 1, .import = import_custom, .domain = "*"};
  return rule;
}

const OpDef ops::Custom = {
    .name = "Custom",
    .doc = "An op of the user's own, which the program registers (tandem/custom_op.h).",
    .fields = {{.name = "op", .kind = FieldKind::text, .initial = std::string(), .doc = "\"domain::name\""},
               {.name = "attributes", .kind = FieldKind::text, .initial = std::string(), .doc = "of the model's node, as text"}},
    .operands = {{"x"}},
    .min_operands = 1,
    .max_operands = -1,
    .infer = infer,
    .rule = rule,
};

}  // namespace tandem
