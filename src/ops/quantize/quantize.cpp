// QuantizeLinear and DequantizeLinear.
#include <cmath>

#include "core/check.h"
#include "core/tensor.h"
#include "ops/ops.h"
#include "ops/quantize/import.h"
#include "ops/quantize/scales.h"

namespace tandem::ops {
namespace {

const Type* zero_of(const OpCall& call) { return call.has_operand(kQuantizeZero) ? &call.operand(kQuantizeZero) : nullptr; }

Granularity granularity_of(const OpCall& call) {
  return check_scales(call.operand(kQuantizeX), call.operand(kQuantizeScale), zero_of(call), call.attributes.integer("axis"),
                      call.attributes.integer("block_size"));
}

void require_zero(const OpCall& call, DType expected) {
  if (const Type* zero = zero_of(call); zero && zero->dtype != expected)
    fail(ErrorCode::invalid_model, "zero points are {}, expected {}", to_string(zero->dtype), to_string(expected));
}

std::vector<Type> infer_quantize(const OpCall& call) {
  const Type& x = call.operand(kQuantizeX);
  const DType to = call.attributes.get<DType>("to");
  if (!is_float(x.dtype) && x.dtype != DType::i32)
    fail(ErrorCode::invalid_model, "{} is quantised, expected a float type or i32", to_string(x.dtype));
  if (!is_quantized(to)) fail(ErrorCode::invalid_model, "it gives no {}", to_string(to));
  require_zero(call, to);
  granularity_of(call);
  return {{to, x.dims}};
}

std::vector<Type> infer_dequantize(const OpCall& call) {
  const Type& x = call.operand(kQuantizeX);
  const DType to = call.attributes.get<DType>("to");
  if (!is_quantized(x.dtype) && x.dtype != DType::i32) fail(ErrorCode::invalid_model, "{} holds no quantised numbers", to_string(x.dtype));
  if (!is_float(to)) fail(ErrorCode::invalid_model, "it gives no {}", to_string(to));
  require_zero(call, x.dtype);
  granularity_of(call);
  return {{to, x.dims}};
}

// Scales are split as the tensor is; a border between ranks never lies inside a block.
ShardingRule rule(const OpCall& call) {
  const Type& x = call.operand(kQuantizeX);
  const Granularity granularity = granularity_of(call);
  const int axis = granularity == Granularity::tensor ? -1 : normalize_axis(call.attributes.integer("axis"), x.rank());
  ShardingRule rule;
  std::vector<ShardingRule::DimFactors> of_x, of_scale;
  for (int d = 0; d < x.rank(); ++d) {
    const Dim& extent = x.dims[static_cast<std::size_t>(d)];
    if (granularity != Granularity::block || d != axis) {
      of_x.push_back({rule.add(extent)});
      if (granularity == Granularity::block || d == axis) of_scale.push_back(of_x.back());
      continue;
    }
    const Dim block = call.attributes.integer("block_size");
    const auto blocks = extent.exact_divide(block);
    const auto whole = ShardingRule::Role::whole;
    if (blocks) {
      const int outer = rule.add(*blocks);
      of_x.push_back({outer, rule.add(block, whole)});
      of_scale.push_back({outer});
    } else {
      of_x.push_back({rule.add(extent, whole)});
      of_scale.push_back({rule.add(ceil_div(extent, block), whole)});
    }
  }
  if (granularity == Granularity::tensor) of_scale.resize(call.operand(kQuantizeScale).dims.size());
  rule.operands = {of_x, of_scale};
  if (zero_of(call)) rule.operands.push_back(of_scale);
  rule.results = {of_x};
  return rule;
}

ScaleLayout layout_of(const OpCall& call) {
  const Attributes& where = call.attributes;
  return scale_layout(call.operand(kQuantizeX), call.operand(kQuantizeScale), where.integer("axis"), where.integer("block_size"));
}

// x / scale as the dtype of the scale rounds it.
double quotient(double x, double scale, DType type) {
  std::byte room[8];
  store_element(type, room, 0, x / scale);
  return load_element(type, room, 0);
}

std::vector<Tensor> evaluate_quantize(const OpCall& call, std::span<const Tensor> in) {
  const Tensor &x = in[kQuantizeX], &scale = in[kQuantizeScale];
  const bool shifted = call.has_operand(kQuantizeZero), saturate = call.attributes.boolean("saturate");
  const ScaleLayout layout = layout_of(call);
  Tensor y(call.results.at(0).dtype, x.shape());
  const QuantizedRange range = quantized_range(y.dtype());
  for (std::int64_t i = 0; i < x.count(); ++i) {
    const std::int64_t at = layout.at(i);
    double v = quotient(x.at(i), scale.at(at), scale.dtype());
    if (is_integer(y.dtype())) {
      v = std::isnan(v) ? 0 : std::nearbyint(v);
      if (shifted) v += in[kQuantizeZero].at(at);
    }
    if ((saturate || is_integer(y.dtype())) && !std::isnan(v)) v = std::fmax(range.least, std::fmin(range.most, v));
    store_element(y.dtype(), y.mutable_data(), i, v);
  }
  return {y};
}

std::vector<Tensor> evaluate_dequantize(const OpCall& call, std::span<const Tensor> in) {
  const Tensor &x = in[kQuantizeX], &scale = in[kQuantizeScale];
  const bool shifted = call.has_operand(kQuantizeZero);
  const ScaleLayout layout = layout_of(call);
  Tensor y(call.results.at(0).dtype, x.shape());
  for (std::int64_t i = 0; i < x.count(); ++i) {
    const std::int64_t at = layout.at(i);
    const double zero = shifted ? in[kQuantizeZero].at(at) : 0;
    store_element(y.dtype(), y.mutable_data(), i, (x.at(i) - zero) * scale.at(at));
  }
  return {y};
}

const std::vector<Field> kWhere = {
    {"axis", FieldKind::integer, std::int64_t{1}, {}, "along which scales differ"},
    {"block_size", FieldKind::integer, std::int64_t{0}, {}, "elements along the axis that share a scale; 0: no blocks"}};

std::vector<Field> with(std::vector<Field> more) {
  std::vector<Field> fields = kWhere;
  fields.insert(fields.end(), more.begin(), more.end());
  return fields;
}

constexpr std::string_view kScale = "one, one per index of the axis, or one per block", kZero = "like the scale";

}  // namespace

const OpDef QuantizeLinear = {
    .name = "QuantizeLinear",
    .doc =
        "y = saturate(round(x / scale) + zero_point): the quotient rounded in the scale's dtype, then to nearest even; NaN counts as 0. "
        "For 8-bit floats y = x / scale rounded to them, NaN kept.",
    .fields =
        with({{"to", FieldKind::dtype, DType::u8, {}, "dtype of the result"},
              {"saturate", FieldKind::boolean, true, {}, "of 8-bit floats: the largest number for what is larger, not infinity or NaN"}}),
    .operands = {{"x"}, {"scale", kScale}, {"zero_point", kZero}},
    .min_operands = 2,
    .max_operands = 3,
    .infer = infer_quantize,
    .rule = rule,
    .evaluate = evaluate_quantize,
    .onnx = {{"QuantizeLinear", 10, import_quantize}, {"DynamicQuantizeLinear", 11, import_dynamic_quantize}},
};

const OpDef DequantizeLinear = {
    .name = "DequantizeLinear",
    .doc = "y = (x - zero_point)·scale, rounded once to the dtype of the result.",
    .fields = with({{"to", FieldKind::dtype, DType::f32, {}, "dtype of the result"}}),
    .operands = {{"x"}, {"scale", kScale}, {"zero_point", kZero}},
    .min_operands = 2,
    .max_operands = 3,
    .infer = infer_dequantize,
    .rule = rule,
    .evaluate = evaluate_dequantize,
    .onnx = {{"DequantizeLinear", 10, import_dequantize}},
};

}  // namespace tandem::ops
