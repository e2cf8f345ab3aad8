#include <algorithm>

#include "core/check.h"
#include "graph/builder.h"
#include "graph/graph.h"
#include "ops/ops.h"
#include "ops/shape_rules.h"

namespace tandem {
namespace {

std::vector<Type> infer(const OpCall& call) {
  const auto& shape = call.attributes.integers("shape");
  const std::size_t count = call.attributes.dims("values").size();
  if (element_count(shape) != static_cast<std::int64_t>(count))
    fail(ErrorCode::invalid_model, "{} values do not fill shape {}", count, to_string(shape));
  const DType dtype = call.attributes.get<DType>("dtype");
  if (is_float(dtype)) fail(ErrorCode::invalid_model, "dtype {}, expected an integer type", to_string(dtype));
  return {{dtype, dims_of_shape(shape)}};
}

std::vector<Tensor> evaluate(const OpCall& call, std::span<const Tensor>) {
  std::vector<std::int64_t> values;
  for (const Dim& d : call.attributes.dims("values")) values.push_back(d.constant());
  return {Tensor::of_ints(call.attributes.get<DType>("dtype"), call.attributes.integers("shape"), values)};
}

std::vector<Value*> import_shape(const ForeignNode& node, GraphBuilder& b) {
  const std::vector<Dim>& dims = node.required(0)->type.dims;
  const auto rank = static_cast<std::int64_t>(dims.size());
  const auto clamped = [&](std::int64_t at) { return std::clamp<std::int64_t>(at < 0 ? at + rank : at, 0, rank); };
  const std::int64_t start = clamped(node.integer("start", 0)), end = std::max(start, clamped(node.integer("end", rank)));
  return {b.dim_value({dims.begin() + start, dims.begin() + end}, {end - start})};
}

std::vector<Value*> import_size(const ForeignNode& node, GraphBuilder& b) {
  return {b.dim_value({product(node.required(0)->type.dims)}, {})};
}

}  // namespace

const OpDef ops::DimValue = {
    .name = "DimValue",
    .doc = "Integers that follow from the input shapes, such as a product of extents.",
    .fields =
        {{.name = "values", .kind = FieldKind::dims, .initial = std::vector<Dim>{}, .doc = "row-major"},
         {.name = "shape", .kind = FieldKind::integers, .initial = std::vector<std::int64_t>{}, .doc = "of the result; [] is a scalar"},
         {.name = "dtype", .kind = FieldKind::dtype, .initial = DType::i64, .doc = "of the result"}},
    .infer = infer,
    .evaluate = evaluate,
    .fold = [](const OpCall& call, std::span<const std::optional<DimContent>>) -> std::optional<DimContent> {
      return call.attributes.dims("values");
    },
    .onnx = {{.op_type = "Shape", .since = 1, .import = import_shape}, {.op_type = "Size", .since = 1, .import = import_size}},
};

}  // namespace tandem
