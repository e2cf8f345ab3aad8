#include <algorithm>

#include "core/check.h"
#include "graph/graph.h"
#include "ops/layout/reshape_rule.h"
#include "ops/layout/strided.h"
#include "ops/ops.h"
#include "ops/shape_rules.h"

namespace tandem {
namespace {

std::vector<Type> infer(const OpCall& call) {
  const Type& from = call.operand(0);
  const std::vector<Dim>& dims = call.attributes.dims("shape");
  for (const Dim& d : dims)
    if (d.is_constant() && d.constant() < 0) fail(ErrorCode::invalid_model, "shape {} has a negative extent", to_string(dims));
  if (!may_be_equal(product(from.dims), product(dims)))
    fail(ErrorCode::invalid_model, "cannot reshape {} to {}: the numbers of elements differ", to_string(from.dims), to_string(dims));
  return {{from.dtype, dims}};
}

void localize(Node& node, const Mesh& mesh) {
  node.attributes.set("shape", local_type(node.result()->type, node.result()->sharding, mesh).dims);
}

Value* reshape(GraphBuilder& b, Value* x, std::vector<Dim> dims) {
  b.require_equal(product(x->type.dims), product(dims));
  if (x->type.dims == dims) return x;
  return b.add("Reshape", {x}, {{"shape", std::move(dims)}});
}

std::vector<Value*> import_reshape(const ForeignNode& node, GraphBuilder& b) {
  Value* x = node.required(0);
  std::vector<Dim> dims = b.require_dims(node.required(1), "shape");
  const std::vector<Dim>& from = x->type.dims;
  const bool keep_zero = node.integer("allowzero", 0) != 0;
  int open = -1;
  for (std::size_t i = 0; i < dims.size(); ++i) {
    if (dims[i] == Dim(0) && !keep_zero) {
      if (i >= from.size())
        fail(ErrorCode::invalid_model, "shape {}: 0 at {} copies an extent that {} does not have", to_string(dims), i, x->type.to_string());
      dims[i] = from[i];
    } else if (dims[i] == Dim(-1)) {
      if (open >= 0) fail(ErrorCode::invalid_model, "shape {} has more than one -1", to_string(dims));
      open = static_cast<int>(i);
    }
  }
  if (open >= 0) {
    Dim& hole = dims[static_cast<std::size_t>(open)];
    hole = 1;
    const Dim all = product(from), others = product(dims);
    if (others == Dim(0)) fail(ErrorCode::invalid_model, "shape {}: -1 beside an extent of 0 is undecided", to_string(dims));
    const auto exact = all.exact_divide(others);
    hole = exact ? *exact : floor_div(all, others);
  }
  return {reshape(b, x, std::move(dims))};
}

std::vector<Value*> import_flatten(const ForeignNode& node, GraphBuilder& b) {
  Value* x = node.required(0);
  const std::vector<Dim>& from = x->type.dims;
  std::int64_t axis = node.integer("axis", 1);
  if (axis < -x->type.rank() || axis > x->type.rank()) fail(ErrorCode::invalid_model, "axis {} is outside rank {}", axis, x->type.rank());
  if (axis < 0) axis += x->type.rank();
  const auto cut = from.begin() + axis;
  return {reshape(b, x, {product({from.begin(), cut}), product({cut, from.end()})})};
}

// Axes as an attribute (before opset 13) or as input 1.
std::optional<std::vector<std::int64_t>> axes_of(const ForeignNode& node, GraphBuilder& b) {
  if (Value* axes = node.input(1)) return b.require_ints(axes, "axes");
  if (node.has("axes")) return node.integers("axes", {});
  return std::nullopt;
}

std::vector<Value*> import_squeeze(const ForeignNode& node, GraphBuilder& b) {
  Value* x = node.required(0);
  const auto given = axes_of(node, b);
  std::vector<int> axes;
  if (given) axes = normalize_axes(*given, x->type.rank());
  std::vector<Dim> dims;
  for (int i = 0; i < x->type.rank(); ++i) {
    const Dim& d = x->type.dims[static_cast<std::size_t>(i)];
    const bool chosen = given ? std::ranges::find(axes, i) != axes.end() : d == Dim(1);
    if (chosen) b.require_equal(d, 1);
    else dims.push_back(d);
  }
  return {reshape(b, x, std::move(dims))};
}

std::vector<Value*> import_unsqueeze(const ForeignNode& node, GraphBuilder& b) {
  Value* x = node.required(0);
  const auto given = axes_of(node, b);
  if (!given) fail(ErrorCode::invalid_model, "axes are missing");
  std::vector<Dim> dims = x->type.dims;
  // Sorted, so that each insertion finds the earlier ones in place.
  for (int axis : normalize_axes(*given, x->type.rank() + static_cast<int>(given->size()))) dims.insert(dims.begin() + axis, Dim(1));
  return {reshape(b, x, std::move(dims))};
}

std::vector<Value*> import_identity(const ForeignNode& node, GraphBuilder&) { return {node.required(0)}; }

// Inference only: the input itself; a mask of ones if somebody wants it.
std::vector<Value*> import_dropout(const ForeignNode& node, GraphBuilder& b) {
  Value* x = node.required(0);
  if (Value* training = node.input(2); training && b.require_ints(training, "training_mode") != std::vector<std::int64_t>{0})
    fail(ErrorCode::unsupported, "training mode is not supported");
  if (node.outputs.size() < 2 || node.outputs[1].empty()) return {x, nullptr};
  return {x, b.add("Expand", {b.scalar(DType::boolean, 1)}, {{"shape", x->type.dims}})};
}

}  // namespace

const OpDef ops::Reshape = {
    .name = "Reshape",
    .doc = "The same elements in row-major order under other extents.",
    .fields = {{.name = "shape", .kind = FieldKind::dims, .initial = std::vector<Dim>{}, .doc = "the extents of the result"}},
    .operands = {{"x"}},
    .min_operands = 1,
    .max_operands = 1,
    .infer = infer,
    .rule = [](const OpCall& call) { return reshape_rule(call.operand(0).dims, call.results.at(0).dims); },
    .localize = localize,
    .evaluate = [](const OpCall& call, std::span<const Tensor> x) -> std::vector<Tensor> {
      return {x[0].reshaped(shape_of(call.results.at(0)))};
    },
    .fold = [](const OpCall&, std::span<const std::optional<DimContent>> x) { return x[0]; },
    .onnx = {{.op_type = "Reshape", .since = 5, .import = import_reshape},
             {.op_type = "Flatten", .since = 1, .import = import_flatten},
             {.op_type = "Squeeze", .since = 1, .import = import_squeeze},
             {.op_type = "Unsqueeze", .since = 1, .import = import_unsqueeze},
             {.op_type = "Identity", .since = 1, .import = import_identity},
             {.op_type = "Dropout", .since = 7, .import = import_dropout}},
};

}  // namespace tandem
