#include "core/check.h"
#include "ops/layout/strided.h"
#include "ops/ops.h"
#include "ops/shape_rules.h"

namespace tandem {
namespace {

std::vector<Type> infer(const OpCall& call) {
  const Tensor& value = call.attributes.get<Tensor>("value");
  return {{value.dtype(), dims_of_shape(value.shape())}};
}

std::optional<DimContent> fold(const OpCall& call, std::span<const std::optional<DimContent>>) {
  const Tensor& value = call.attributes.get<Tensor>("value");
  if (is_float(value.dtype()) || !content_shape(call.results.at(0).dims)) return std::nullopt;
  const auto values = value.to_ints();
  return DimContent(values.begin(), values.end());
}

// ONNX has one attribute per kind of value; exactly one is given.
std::vector<Value*> import(const ForeignNode& node, GraphBuilder& b) {
  if (node.attributes.size() != 1) fail(ErrorCode::invalid_model, "{} attributes, expected one value", node.attributes.size());
  const auto& [name, given] = *node.attributes.begin();
  if (name == "value")
    if (const Tensor* value = std::get_if<Tensor>(&given)) return {b.constant(*value)};
  if (name == "value_float") return {b.scalar(DType::f32, node.real(name, 0))};
  if (name == "value_int") return {b.constant(Tensor::of_ints(DType::i64, {}, std::vector<std::int64_t>{node.integer(name, 0)}))};
  if (name == "value_ints") {
    const auto values = node.integers(name, {});
    return {b.constant(Tensor::of_ints(DType::i64, {static_cast<std::int64_t>(values.size())}, values))};
  }
  if (name == "value_floats")
    if (const auto* values = std::get_if<std::vector<double>>(&given))
      return {b.constant(Tensor::of(DType::f32, {static_cast<std::int64_t>(values->size())}, *values))};
  fail(ErrorCode::unsupported, "a constant given by '{}' is not supported", name);
}

}  // namespace

const OpDef ops::Constant = {
    .name = "Constant",
    .doc = "A small tensor written in the graph; large ones are weights.",
    .fields = {{.name = "value", .kind = FieldKind::tensor, .initial = Tensor(DType::f32, {}), .doc = "the tensor"}},
    .infer = infer,
    .evaluate = [](const OpCall& call, std::span<const Tensor>) -> std::vector<Tensor> { return {call.attributes.get<Tensor>("value")}; },
    .fold = fold,
    .onnx = {{.op_type = "Constant", .since = 1, .import = import}},
};

}  // namespace tandem
