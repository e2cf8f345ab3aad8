#include "ops/quantize/import.h"

#include "core/check.h"
#include "ops/onnx_dtype.h"
#include "ops/pointwise/define.h"
#include "ops/quantize/scales.h"

namespace tandem::ops {
namespace {

Value* cast(GraphBuilder& builder, Value* x, DType to) { return x->type.dtype == to ? x : builder.add("Cast", {x}, {{"to", to}}); }

bool is_float8(DType type) { return type == DType::f8e4m3 || type == DType::f8e5m2; }

// 8-bit floats have no zero point but 0.
Value* zero_point(const ForeignNode& node, GraphBuilder& builder, DType quantized) {
  Value* zero = node.input(2);
  if (!zero || !is_float8(quantized)) return zero;
  if (const auto known = builder.constant_of(zero))
    for (const double v : known->to_doubles())
      if (v != 0) fail(ErrorCode::invalid_model, "a zero point of {} is {}, which must be 0", to_string(quantized), v);
  return nullptr;
}

std::vector<Value*> add(GraphBuilder& builder, std::string_view op, std::vector<Value*> operands, Value* zero,
                        const NamedAttributes& attributes) {
  if (zero) operands.push_back(zero);
  return {builder.add(op, std::move(operands), attributes)};
}

}  // namespace

std::vector<Value*> import_quantize(const ForeignNode& node, GraphBuilder& builder) {
  Value *x = node.required(0), *scale = node.required(1);
  const std::int64_t asked = node.integer("output_dtype", 0);
  const DType to = node.input(2) ? node.input(2)->type.dtype : asked != 0 ? dtype_from_onnx(asked) : DType::u8;
  if (asked != 0 && dtype_from_onnx(asked) != to)
    fail(ErrorCode::invalid_model, "output_dtype is {}, but zero points are {}", to_string(dtype_from_onnx(asked)), to_string(to));
  if (const std::int64_t precision = node.integer("precision", 0); precision != 0) {
    x = cast(builder, x, dtype_from_onnx(precision));
    scale = cast(builder, scale, dtype_from_onnx(precision));
  }
  return add(builder, "QuantizeLinear", {x, scale}, zero_point(node, builder, to),
             {{"axis", node.integer("axis", 1)},
              {"block_size", node.integer("block_size", 0)},
              {"to", to},
              {"saturate", node.integer("saturate", 1) != 0}});
}

std::vector<Value*> import_dequantize(const ForeignNode& node, GraphBuilder& builder) {
  Value *x = node.required(0), *scale = node.required(1);
  const std::int64_t asked = node.integer("output_dtype", 0);
  return add(builder, "DequantizeLinear", {x, scale}, zero_point(node, builder, x->type.dtype),
             {{"axis", node.integer("axis", 1)},
              {"block_size", node.integer("block_size", 0)},
              {"to", asked != 0 ? dtype_from_onnx(asked) : scale->type.dtype}});
}

// Over the range of x widened to hold 0, in 255 steps.
std::vector<Value*> import_dynamic_quantize(const ForeignNode& node, GraphBuilder& builder) {
  Value* x = node.required(0);
  std::vector<std::int64_t> axes;
  for (int i = 0; i < x->type.rank(); ++i) axes.push_back(i);
  const auto number = [&](double value) { return builder.scalar(x->type.dtype, value); };
  const auto bound = [&](const char* kind, const char* op) {
    Value* extreme = builder.add("Reduce", {x}, {{"kind", std::string(kind)}, {"axes", axes}, {"keepdims", false}});
    return builder.add(op, {extreme, number(0)});
  };
  Value *least = bound("min", "Min"), *most = bound("max", "Max");
  Value* scale = builder.add("Div", {builder.add("Sub", {most, least}), number(255)});
  Value* zero = builder.add("Sub", {number(0), builder.add("Div", {least, scale})});
  zero = builder.add("Min", {builder.add("Max", {zero, number(0)}), number(255)});
  zero = cast(builder, builder.add("Round", {zero}), DType::u8);
  return {builder.add("QuantizeLinear", {x, scale, zero}, {{"to", DType::u8}}), scale, zero};
}

// In i32, which holds what 8-bit numbers give.
std::vector<Value*> import_matmul_integer(const ForeignNode& node, GraphBuilder& builder) {
  const auto shifted = [&](std::size_t operand) {
    Value *x = node.required(operand), *zero = node.input(operand + 2);
    x = cast(builder, x, DType::i32);
    if (!zero) return x;
    zero = cast(builder, zero, DType::i32);
    // A vector of the left operand has one number per row.
    if (operand == 0 && zero->type.rank() == 1 && zero->type.dims[0] != Dim(1))
      zero = builder.add("Reshape", {zero}, {{"shape", std::vector<Dim>{zero->type.dims[0], Dim(1)}}});
    return pointwise::add_broadcast(builder, "Sub", x, zero);
  };
  return {builder.add("MatMul", {shifted(0), shifted(1)})};
}

}  // namespace tandem::ops
