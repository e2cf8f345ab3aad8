#include "core/tensor.h"
#include "ops/ops.h"
#include "ops/pointwise/define.h"
#include "ops/pointwise/dim_rules.h"

namespace tandem::ops {
namespace {

std::vector<Type> infer(const OpCall& call) {
  require_dtype(call, 0, is_boolean, "bool");
  const DType dtype = same_dtype(call, 1);
  const auto values = broadcast_dims(call.operand(1).dims, call.operand(2).dims);
  return {{dtype, broadcast_dims(call.operand(0).dims, values.dims).dims}};
}

std::vector<Tensor> evaluate(const OpCall& call, std::span<const Tensor> in) {
  const Shape shape = shape_of(call.results.at(0));
  Tensor out(call.results[0].dtype, shape);
  std::byte* data = out.mutable_data();
  std::array<Shape, 3> strides;
  for (std::size_t n = 0; n < 3; ++n) strides[n] = strides_over(in[n].shape(), shape);
  for_each_offset<3>(shape, strides, [&](std::int64_t i, const auto& at) {
    const std::size_t chosen = in[0].int_at(at[0]) != 0 ? 1 : 2;
    if (is_float(out.dtype())) store_element(out.dtype(), data, i, in[chosen].at(at[chosen]));
    else store_int(out.dtype(), data, i, in[chosen].int_at(at[chosen]));
  });
  return {out};
}

std::optional<Dim> choose(const Dim& condition, const Dim& x, const Dim& y) {
  if (x == y) return x;
  if (!condition.is_constant()) return std::nullopt;
  return condition == Dim(0) ? y : x;
}

std::vector<Value*> import(const ForeignNode& node, GraphBuilder& builder) {
  Value *condition = node.required(0), *x = node.required(1), *y = node.required(2);
  const auto values = broadcast_dims(x->type.dims, y->type.dims);
  const auto all = broadcast_dims(condition->type.dims, values.dims);
  for (const auto& [a, b] : values.equal) builder.require_equal(a, b);
  for (const auto& [a, b] : all.equal) builder.require_equal(a, b);
  return {builder.add("Where", {condition, x, y})};
}

}  // namespace

const OpDef Where = {
    .name = "Where",
    .doc = "y = a where the condition (operand 0) holds, else b.",
    .operands = {{"condition", "bool"}, {"a"}, {"b"}},
    .min_operands = 3,
    .max_operands = 3,
    .infer = infer,
    .rule = pointwise_rule,
    .evaluate = evaluate,
    .fold = dim_rules::fold<choose>,
    .onnx = {{"Where", 9, import}},
    .pointwise = true,
};

}  // namespace tandem::ops
