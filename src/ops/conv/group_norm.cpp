// GroupNorm, and the norms of ONNX that come down to it or to arithmetic per channel.
#include <cmath>

#include "core/tensor.h"
#include "graph/graph.h"
#include "ops/ops.h"
#include "ops/pointwise/define.h"

namespace tandem::ops {
namespace {

std::int64_t group_size(const OpCall& call) { return call.attributes.integer("group_size"); }

std::vector<Type> infer(const OpCall& call) {
  same_dtype(call);
  require_dtype(call, 0, is_float, "a float type");
  const Type& x = require_rank(call, 0, 2, 8);
  if (group_size(call) < 1) fail(ErrorCode::invalid_model, "group_size is {}, expected 1 or more", group_size(call));
  if (!x.dims[1].exact_divide(group_size(call)))
    fail(ErrorCode::invalid_model, "{} channels do not divide into groups of {}", x.dims[1].to_string(), group_size(call));
  for (const std::size_t i : {1, 2}) merge_equal(require_rank(call, i, 1, 1).dims[0], x.dims[1], "the channels of x and of a parameter");
  return {x};
}

ShardingRule rule(const OpCall& call) {
  using Role = ShardingRule::Role;
  const Type& x = call.operand(0);
  ShardingRule rule;
  const int batch = rule.add(x.dims[0]);
  ShardingRule::DimFactors channels = {rule.add(*x.dims[1].exact_divide(group_size(call)))};
  if (group_size(call) > 1) channels.push_back(rule.add(group_size(call), Role::whole));
  std::vector<ShardingRule::DimFactors> dims = {{batch}, channels};
  for (std::size_t d = 2; d < x.dims.size(); ++d) dims.push_back({rule.add(x.dims[d], Role::whole)});
  rule.operands = {dims, {channels}, {channels}};
  rule.results = {dims};
  return rule;
}

std::vector<Tensor> evaluate(const OpCall& call, std::span<const Tensor> in) {
  const Shape& shape = in[0].shape();
  const std::int64_t channels = shape[1], image = element_count({shape.begin() + 2, shape.end()}), length = group_size(call) * image;
  Tensor y(in[0].dtype(), shape);
  for (std::int64_t start = 0; start < y.count(); start += length) {
    double mean = 0, variance = 0;
    for (std::int64_t i = start; i < start + length; ++i) mean += in[0].at(i) / static_cast<double>(length);
    for (std::int64_t i = start; i < start + length; ++i)
      variance += (in[0].at(i) - mean) * (in[0].at(i) - mean) / static_cast<double>(length);
    const double factor = 1 / std::sqrt(variance + call.attributes.real("epsilon"));
    for (std::int64_t i = start; i < start + length; ++i) {
      const std::int64_t c = i / image % channels;
      store_element(y.dtype(), y.mutable_data(), i, (in[0].at(i) - mean) * factor * in[1].at(c) + in[2].at(c));
    }
  }
  return {y};
}

std::int64_t channels_of(const Value* x) {
  if (x->type.rank() < 2 || !x->type.dims[1].is_constant())
    fail(ErrorCode::unsupported, "the channels of {} are no number", x->type.to_string());
  return x->type.dims[1].constant();
}

std::vector<Value*> add(GraphBuilder& builder, Value* x, Value* scale, Value* bias, std::int64_t group_size, double epsilon) {
  for (Value* parameter : {scale, bias}) {
    if (parameter->type.rank() != 1) fail(ErrorCode::invalid_model, "a parameter is {}, expected a vector", parameter->type.to_string());
    builder.require_equal(parameter->type.dims[0], x->type.dims[1]);
  }
  return {builder.add("GroupNorm", {x, scale, bias}, {{"group_size", group_size}, {"epsilon", epsilon}})};
}

std::vector<Value*> import_instance(const ForeignNode& node, GraphBuilder& builder) {
  return add(builder, node.required(0), node.required(1), node.required(2), 1, node.real("epsilon", 1e-5));
}

// Before opset 21 the parameters are per group.
std::vector<Value*> import_group(const ForeignNode& node, GraphBuilder& builder) {
  Value* x = node.required(0);
  const std::int64_t channels = channels_of(x), groups = node.integer("num_groups", 0);
  if (groups < 1 || channels % groups != 0) fail(ErrorCode::invalid_model, "{} channels do not divide into {} groups", channels, groups);
  const std::int64_t size = channels / groups;
  const auto spread = [&](Value* parameter) {
    if (node.opset >= 21 || size == 1) return parameter;
    Value* rows = builder.add("Reshape", {parameter}, {{"shape", std::vector<Dim>{groups, 1}}});
    return builder.add("Reshape", {builder.add("Expand", {rows}, {{"shape", std::vector<Dim>{groups, size}}})},
                       {{"shape", std::vector<Dim>{channels}}});
  };
  return add(builder, x, spread(node.required(1)), spread(node.required(2)), size, node.real("epsilon", 1e-5));
}

// For inference: y = x·f + (bias − mean·f) with f = scale/√(variance + epsilon), per channel.
std::vector<Value*> import_batch(const ForeignNode& node, GraphBuilder& builder) {
  if (node.integer("training_mode", 0) != 0) fail(ErrorCode::unsupported, "training mode is not supported");
  if (node.integer("spatial", 1) != 1) fail(ErrorCode::unsupported, "statistics per element are not supported");
  for (std::size_t i = 1; i < node.outputs.size(); ++i)
    if (!node.outputs[i].empty()) fail(ErrorCode::unsupported, "output {} (a statistic) is not supported", i);
  Value* x = node.required(0);
  if (x->type.rank() < 2) fail(ErrorCode::invalid_model, "x is {}, expected rank 2 or more", x->type.to_string());
  std::vector<Dim> dims(x->type.dims.size() - 1, Dim(1));
  dims[0] = x->type.dims[1];
  const auto parameter = [&](std::size_t i) {
    Value* value = node.required(i);
    if (value->type.rank() != 1) fail(ErrorCode::invalid_model, "input {} is {}, expected a vector", i, value->type.to_string());
    builder.require_equal(value->type.dims[0], x->type.dims[1]);
    return value->type.dtype == x->type.dtype ? value : builder.add("Cast", {value}, {{"to", x->type.dtype}});
  };
  Value *scale = parameter(1), *bias = parameter(2), *mean = parameter(3), *variance = parameter(4);
  Value* deviation = builder.add("Sqrt", {builder.add("Add", {variance, builder.scalar(x->type.dtype, node.real("epsilon", 1e-5))})});
  Value* factor = builder.add("Div", {scale, deviation});
  Value* offset = builder.add("Sub", {bias, builder.add("Mul", {mean, factor})});
  const auto column = [&](Value* value) { return builder.add("Reshape", {value}, {{"shape", dims}}); };
  return {pointwise::add_broadcast(builder, "Add", pointwise::add_broadcast(builder, "Mul", x, column(factor)), column(offset))};
}

}  // namespace

const OpDef GroupNorm = {
    .name = "GroupNorm",
    .doc = "y = (x − mean)/√(variance + epsilon)·scale[c] + bias[c], the statistics over group_size channels and all of their elements.",
    .fields = {{"group_size", FieldKind::integer, std::int64_t{1}, {}, "channels that are normalized together"},
               {"epsilon", FieldKind::real, 1e-5, {}, "added to the variance"}},
    .operands = {{"x", "[n,c,…]"}, {"scale", "[c]"}, {"bias", "[c]"}},
    .min_operands = 3,
    .max_operands = 3,
    .infer = infer,
    .rule = rule,
    .evaluate = evaluate,
    .onnx = {{"InstanceNormalization", 6, import_instance},
             {"GroupNormalization", 18, import_group},
             {"BatchNormalization", 7, import_batch}},
};

}  // namespace tandem::ops
