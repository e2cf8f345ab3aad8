// LayerNorm and RmsNorm, alone and after the addition of a residual.
#include <cmath>

#include "core/tensor.h"
#include "graph/graph.h"
#include "ops/ops.h"
#include "ops/pointwise/define.h"

namespace tandem::ops {
namespace {

// What one of the four ops does. Operands: x, residual if kAdds, scale, for LayerNorm an optional bias, and if kAdds an optional offset.
template <bool kCenters, bool kAdds>
struct Norm {
  static constexpr std::size_t kScale = kAdds ? 2 : 1, kBias = kScale + 1, kOffset = kCenters ? kBias + 1 : kBias;
  static constexpr std::size_t kMost = kAdds ? kOffset + 1 : kOffset;

  static int axis(const OpCall& call) { return normalize_axis(call.attributes.integer("axis"), call.operand(0).rank()); }

  static std::vector<Type> infer(const OpCall& call) {
    same_dtype(call);
    require_dtype(call, 0, is_float, "a float type");
    Type x = call.operand(0);
    if (kAdds) {
      const Type& residual = call.operand(1);
      if (residual.rank() != x.rank())
        fail(ErrorCode::invalid_model, "the residual is {}, expected {}", residual.to_string(), x.to_string());
      for (std::size_t i = 0; i < x.dims.size(); ++i) x.dims[i] = merge_equal(x.dims[i], residual.dims[i], "the extents of x and residual");
    }
    const std::vector<Dim> normalized(x.dims.begin() + axis(call), x.dims.end());
    for (std::size_t i = kScale; i < call.operands.size(); ++i) {
      if (!call.has_operand(i)) continue;
      const Type& type = call.operand(i);
      if (type.rank() > static_cast<int>(normalized.size()) || broadcast_dims(type.dims, normalized).dims.size() != normalized.size())
        fail(ErrorCode::invalid_model, "operand {} is {}, expected to broadcast to {}", i, type.to_string(), to_string(normalized));
    }
    if (kAdds) return {x, x};
    return {x};
  }

  static ShardingRule rule(const OpCall& call) {
    ShardingRule rule = pointwise_rule(call);
    for (int d = axis(call); d < call.results[0].rank(); ++d)
      for (const int factor : rule.results[0][static_cast<std::size_t>(d)])
        rule.factors[static_cast<std::size_t>(factor)].role = ShardingRule::Role::whole;
    return rule;
  }

  static std::vector<Tensor> evaluate(const OpCall& call, std::span<const Tensor> in) {
    const Shape& shape = in[0].shape();
    const Shape normalized(shape.begin() + axis(call), shape.end());
    const std::int64_t length = element_count(normalized);
    const double epsilon = call.attributes.real("epsilon");
    const Shape scale_strides = strides_over(in[kScale].shape(), normalized);
    const bool biased = kCenters && call.has_operand(kBias), shifted = kAdds && call.has_operand(kOffset);
    const Shape none(normalized.size(), 0);
    const Shape bias_strides = biased ? strides_over(in[kBias].shape(), normalized) : none;
    const Shape offset_strides = shifted ? strides_over(in[kOffset].shape(), normalized) : none;
    Tensor y(in[0].dtype(), shape), sum(in[0].dtype(), shape);
    std::vector<double> row(static_cast<std::size_t>(length));
    for (std::int64_t start = 0; start < y.count(); start += length) {
      double mean = 0, variance = 0;
      for_each_offset<1>(normalized, {offset_strides}, [&](std::int64_t j, const auto& at) {
        double& x = row[static_cast<std::size_t>(j)] = in[0].at(start + j);
        if (kAdds) {  // the norm sees the sum as it is stored
          store_element(sum.dtype(), sum.mutable_data(), start + j, x + (shifted ? in[kOffset].at(at[0]) : 0) + in[1].at(start + j));
          x = sum.at(start + j);
        }
        if (kCenters) mean += x / static_cast<double>(length);
      });
      for (const double x : row) variance += (x - mean) * (x - mean) / static_cast<double>(length);
      const double factor = 1 / std::sqrt(variance + epsilon);
      for_each_offset<2>(normalized, {scale_strides, bias_strides}, [&](std::int64_t j, const auto& at) {
        const double value = (row[static_cast<std::size_t>(j)] - mean) * factor * in[kScale].at(at[0]);
        store_element(y.dtype(), y.mutable_data(), start + j, value + (biased ? in[kBias].at(at[1]) : 0));
      });
    }
    if (kAdds) return {y, sum};
    return {y};
  }

  static std::vector<Operand> operands() {
    std::vector<Operand> names = {{"x"}};
    if (kAdds) names.push_back({"residual", "like x"});
    names.push_back({"scale", "broadcasts to the normalized dimensions"});
    if (kCenters) names.push_back({"bias", "broadcasts to the normalized dimensions"});
    if (kAdds) names.push_back({"offset", "broadcasts to the normalized dimensions"});
    return names;
  }

  static OpDef define(std::string_view name, std::string_view doc, std::vector<OnnxRule> onnx = {}) {
    return {
        .name = name,
        .doc = doc,
        .fields = {{"axis", FieldKind::integer, std::int64_t{-1}, {}, "the first of the normalized dimensions, which are the last ones"},
                   {"epsilon", FieldKind::real, 1e-5, {}, "added to the variance or mean square"}},
        .operands = operands(),
        .results = kAdds ? std::vector<Operand>{{"y"}, {"sum"}} : std::vector<Operand>{{"y"}},
        .min_operands = static_cast<int>(kScale) + 1,
        .max_operands = static_cast<int>(kMost),
        .infer = infer,
        .rule = rule,
        .evaluate = evaluate,
        .onnx = std::move(onnx),
    };
  }
};

void refuse_outputs(const ForeignNode& node) {
  for (std::size_t i = 1; i < node.outputs.size(); ++i)
    if (!node.outputs[i].empty()) fail(ErrorCode::unsupported, "output {} (a statistic of the norm) is not supported", i);
}

void require_extents(GraphBuilder& builder, Value* parameter, Value* x) {
  for (const auto& [a, b] : broadcast_dims(parameter->type.dims, x->type.dims).equal) builder.require_equal(a, b);
}

NamedAttributes attributes_of(const ForeignNode& node, const Value* x) {
  const std::int64_t axis = normalize_axis(node.integer("axis", -1), x->type.rank());
  return {{"axis", axis - x->type.rank()}, {"epsilon", node.real("epsilon", 1e-5)}};
}

std::vector<Value*> import_layer_norm(const ForeignNode& node, GraphBuilder& builder) {
  refuse_outputs(node);
  Value *x = node.required(0), *scale = node.required(1), *bias = node.input(2);
  std::vector<Value*> operands = {x, scale};
  if (bias) operands.push_back(bias);
  for (std::size_t i = 1; i < operands.size(); ++i) require_extents(builder, operands[i], x);
  return {builder.add("LayerNorm", operands, attributes_of(node, x))};
}

// The result has the dtype of the scale, which may be wider than that of x.
std::vector<Value*> import_rms_norm(const ForeignNode& node, GraphBuilder& builder) {
  refuse_outputs(node);
  Value *x = node.required(0), *scale = node.required(1);
  if (x->type.dtype != scale->type.dtype) x = builder.add("Cast", {x}, {{"to", scale->type.dtype}});
  require_extents(builder, scale, x);
  return {builder.add("RmsNorm", {x, scale}, attributes_of(node, x))};
}

}  // namespace

const OpDef AddLayerNorm = Norm<true, true>::define("AddLayerNorm",
                                                    "Layer normalization of the sum of x, a residual and an optional offset, with scale "
                                                    "and optional bias; results: the norm, and the sum.");
const OpDef AddRmsNorm = Norm<false, true>::define(
    "AddRmsNorm", "RMS normalization of the sum of x, a residual and an optional offset, with scale; results: the norm, and the sum.");
const OpDef LayerNorm =
    Norm<true, false>::define("LayerNorm", "y = (x − mean)/√(variance + epsilon)·scale + bias over the last dimensions.",
                              {{"LayerNormalization", 17, import_layer_norm}});
const OpDef RmsNorm =
    Norm<false, false>::define("RmsNorm", "y = x/√(mean of x² + epsilon)·scale over the last dimensions.",
                               {{"RMSNormalization", 23, import_rms_norm}, {"SimplifiedLayerNormalization", 1, import_rms_norm}});

}  // namespace tandem::ops
