#include "core/check.h"
#include "graph/graph.h"
#include "ops/layout/strided.h"
#include "ops/ops.h"
#include "ops/shape_rules.h"

namespace tandem {
namespace {

std::vector<Type> infer(const OpCall& call) {
  const Type& from = call.operand(0);
  const std::vector<Dim>& dims = call.attributes.dims("shape");
  const std::size_t lead = dims.size() - std::min(dims.size(), from.dims.size());
  if (from.dims.size() > dims.size()) fail(ErrorCode::invalid_model, "cannot expand {} to {}", from.to_string(), to_string(dims));
  for (std::size_t i = 0; i < from.dims.size(); ++i)
    if (from.dims[i] != Dim(1) && !may_be_equal(from.dims[i], dims[lead + i]))
      fail(ErrorCode::invalid_model, "cannot expand {} to {}", from.to_string(), to_string(dims));
  for (const Dim& d : dims)
    if (d.is_constant() && d.constant() < 0) fail(ErrorCode::invalid_model, "shape {} has a negative extent", to_string(dims));
  return {{from.dtype, dims}};
}

void localize(Node& node, const Mesh& mesh) {
  node.attributes.set("shape", local_type(node.result()->type, node.result()->sharding, mesh).dims);
}

std::vector<Tensor> evaluate(const OpCall& call, std::span<const Tensor> x) {
  const Shape to = shape_of(call.results.at(0));
  return {take_strided(x[0], to, strides_over(x[0].shape(), to))};
}

std::optional<DimContent> fold(const OpCall& call, std::span<const std::optional<DimContent>> x) {
  const auto from = content_shape(call.operand(0).dims), to = content_shape(call.results.at(0).dims);
  if (!x[0] || !from || !to) return std::nullopt;
  return take_strided(*x[0], call.results[0].dims, strides_over(*from, *to));
}

Value* expand(GraphBuilder& b, Value* x, std::vector<Dim> dims) {
  if (x->type.dims == dims) return x;
  return b.add("Expand", {x}, {{"shape", std::move(dims)}});
}

// ONNX broadcasts both ways: an extent of 1 in the shape keeps the operand's.
std::vector<Value*> import_expand(const ForeignNode& node, GraphBuilder& b) {
  Value* x = node.required(0);
  Broadcast both = broadcast_dims(x->type.dims, b.require_dims(node.required(1), "shape"));
  for (const auto& [left, right] : both.equal) b.require_equal(left, right);
  return {expand(b, x, std::move(both.dims))};
}

std::vector<Value*> import_constant_of_shape(const ForeignNode& node, GraphBuilder& b) {
  std::vector<Dim> dims = b.require_dims(node.required(0), "shape");
  Tensor value(DType::f32, {});
  if (const auto found = node.attributes.find("value"); found != node.attributes.end()) {
    const Tensor* given = std::get_if<Tensor>(&found->second);
    if (!given || given->count() != 1) fail(ErrorCode::invalid_model, "attribute 'value' must be a tensor of one element");
    value = given->reshaped({});
  }
  return {expand(b, b.constant(value), std::move(dims))};
}

// [d0, d1] tiled r0, r1 times: [d0, d1] → [1, d0, 1, d1] → [r0, d0, r1, d1] → [r0·d0, r1·d1].
std::vector<Value*> import_tile(const ForeignNode& node, GraphBuilder& b) {
  Value* x = node.required(0);
  const DimContent repeats = b.require_dims(node.required(1), "repeats");
  if (repeats.size() != x->type.dims.size()) fail(ErrorCode::invalid_model, "{} repeats for rank {}", repeats.size(), x->type.rank());
  std::vector<Dim> open, wide, result;
  for (std::size_t i = 0; i < repeats.size(); ++i) {
    const Dim& extent = x->type.dims[i];
    if (repeats[i].is_constant() && repeats[i].constant() < 0) fail(ErrorCode::invalid_model, "{} repeats", repeats[i].constant());
    if (repeats[i] != Dim(1)) {
      open.push_back(1);
      wide.push_back(repeats[i]);
    }
    open.push_back(extent);
    wide.push_back(extent);
    result.push_back(repeats[i] * extent);
  }
  if (open == x->type.dims) return {x};
  Value* opened = b.add("Reshape", {x}, {{"shape", open}});
  return {b.add("Reshape", {expand(b, opened, wide)}, {{"shape", result}})};
}

}  // namespace

const OpDef ops::Expand = {
    .name = "Expand",
    .doc = "Repeats dimensions of extent 1, and adds leading ones, to reach the given shape.",
    .fields = {{.name = "shape", .kind = FieldKind::dims, .initial = std::vector<Dim>{}, .doc = "the extents of the result"}},
    .operands = {{"x"}},
    .min_operands = 1,
    .max_operands = 1,
    .infer = infer,
    .rule = pointwise_rule,  // an operand extent of 1 has no factor
    .localize = localize,
    .evaluate = evaluate,
    .fold = fold,
    .onnx = {{.op_type = "Expand", .since = 8, .import = import_expand},
             {.op_type = "ConstantOfShape", .since = 9, .import = import_constant_of_shape},
             {.op_type = "Tile", .since = 6, .import = import_tile}},
};

}  // namespace tandem
