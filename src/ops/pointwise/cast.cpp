#include "core/tensor.h"
#include "ops/onnx_dtype.h"
#include "ops/ops.h"
#include "ops/pointwise/define.h"
#include "ops/pointwise/dim_rules.h"

namespace tandem::ops {
namespace {

std::vector<Type> infer(const OpCall& call) { return {{call.attributes.get<DType>("to"), call.operand(0).dims}}; }

std::vector<Tensor> evaluate(const OpCall& call, std::span<const Tensor> in) { return {in[0].converted(call.attributes.get<DType>("to"))}; }

std::optional<DimContent> fold(const OpCall& call, std::span<const std::optional<DimContent>> contents) {
  const DType to = call.attributes.get<DType>("to");
  if (is_float(to) || is_float(call.operand(0).dtype)) return std::nullopt;
  if (to == DType::boolean) return dim_rules::fold<dim_rules::is_nonzero>(call, contents);
  return contents[0];
}

Value* cast(GraphBuilder& builder, Value* x, DType to) { return x->type.dtype == to ? x : builder.add("Cast", {x}, {{"to", to}}); }

// ONNX casts to 8-bit floats give the largest value, not infinity or NaN, for what is larger, unless `saturate` is 0.
Value* foreign_cast(const ForeignNode& node, GraphBuilder& builder, DType to) {
  Value* x = node.required(0);
  const bool narrows = (to == DType::f8e4m3 || to == DType::f8e5m2) && is_float(x->type.dtype) && x->type.dtype != to;
  if (narrows && node.integer("saturate", 1) != 0) {
    const double most = to == DType::f8e4m3 ? 448 : 57344;
    x = builder.add("Max", {x, builder.scalar(x->type.dtype, -most)});
    x = builder.add("Min", {x, builder.scalar(x->type.dtype, most)});
  }
  return cast(builder, x, to);
}

std::vector<Value*> import_cast(const ForeignNode& node, GraphBuilder& builder) {
  if (!node.has("to")) fail(ErrorCode::invalid_model, "attribute 'to' is missing");
  return {foreign_cast(node, builder, dtype_from_onnx(node.integer("to", 0)))};
}

std::vector<Value*> import_cast_like(const ForeignNode& node, GraphBuilder& builder) {
  return {foreign_cast(node, builder, node.required(1)->type.dtype)};
}

}  // namespace

const OpDef Cast = {
    .name = "Cast",
    .doc = "y = x in another dtype: to integers truncating toward zero and saturating, to floats the nearest, to bool x ≠ 0.",
    .fields = {{"to", FieldKind::dtype, DType::f32, {}, "dtype of the result"}},
    .operands = {{"x"}},
    .min_operands = 1,
    .max_operands = 1,
    .infer = infer,
    .rule = pointwise_rule,
    .evaluate = evaluate,
    .fold = fold,
    .onnx = {{"Cast", 6, import_cast}, {"CastLike", 15, import_cast_like}},
    .pointwise = true,
};

}  // namespace tandem::ops
