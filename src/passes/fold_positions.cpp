// fold_positions: arithmetic over positions that follows from the shapes. A value that counts becomes an Iota, a comparison
// that always holds (or never) a constant, a lookup that takes everything in order a Slice and a Reshape. So exporters spell
// padding masks: mask[b, j] with b and j from Range.
#include <algorithm>

#include "ops/shape_rules.h"
#include "passes/affine.h"
#include "passes/match.h"
#include "passes/passes.h"

namespace tandem::passes {
namespace {

Value* expand(GraphBuilder& builder, Value* value, const std::vector<Dim>& dims) {
  return value->type.dims == dims ? value : builder.add("Expand", {value}, {{"shape", dims}});
}

// Counts along one dimension, and is more than an Iota with ones around it.
Value* as_iota(Node& node) {
  const Value* value = node.result();
  const Node* source = node.operand(0) ? node.operand(0)->producer() : nullptr;
  const bool plain = node.is("Reshape") && (!source || source->is("Iota") || source->is("Constant") || source->is("DimValue"));
  if (plain || node.is("Expand") || !is_integer(value->type.dtype) || node.operands().empty()) return nullptr;
  const auto affine = affine_of(value);
  if (!affine) return nullptr;
  const std::vector<std::size_t> moving = affine->moving();
  if (moving.size() != 1 || affine->steps[moving[0]] != Dim(1)) return nullptr;
  const std::vector<Dim>& dims = value->type.dims;
  GraphBuilder builder = builder_before(node);
  Value* iota = builder.add("Iota", {}, {{"offset", affine->offset}, {"extent", dims[moving[0]]}, {"dtype", value->type.dtype}});
  std::vector<Dim> narrow(dims.size(), Dim(1));
  narrow[moving[0]] = dims[moving[0]];
  return expand(builder, reshape(builder, iota, narrow), dims);
}

// What a comparison gives for every element, if that is known.
std::optional<bool> always(const Node& node) {
  const bool less = node.is("Less") || node.is("LessOrEqual");
  if (!less && !node.is("Greater") && !node.is("GreaterOrEqual")) return std::nullopt;
  const Value *small = node.operand(less ? 0 : 1), *large = node.operand(less ? 1 : 0);
  const std::vector<Dim>& dims = node.result()->type.dims;
  const auto difference = affine_difference(large, small, dims);
  const auto range = difference ? bounds_of(*difference, dims, node.graph().symbol_ranges()) : std::nullopt;
  if (!range) return std::nullopt;
  const std::int64_t least = node.is("Less") || node.is("Greater") ? 1 : 0;
  if (range->min >= least) return true;
  return range->max < least ? std::optional(false) : std::nullopt;
}

Value* as_truth(Node& node) {
  const auto truth = always(node);
  if (!truth) return nullptr;
  GraphBuilder builder = builder_before(node);
  Value* value = builder.constant(Tensor::of_ints(DType::boolean, {}, std::vector<std::int64_t>{*truth}));
  return expand(builder, value, node.result()->type.dims);
}

// What an index takes of one dimension of the data: `length` rows from `begin` on, along dimension `along` of the indices.
struct Taken {
  std::size_t along;
  Dim begin, length;
};

std::optional<Taken> taken_by(const Value* index) {
  const auto affine = affine_of(index);
  if (!affine) return std::nullopt;
  const std::vector<std::size_t> moving = affine->moving();
  if (moving.size() != 1 || affine->steps[moving[0]] != Dim(1) || affine->offset.bounds({}).min < 0) return std::nullopt;
  return Taken{moving[0], affine->offset, index->type.dims[moving[0]]};
}

// data[begin … begin+length] along a dimension. A lookup outside the data is an error, so that the rest of it may be relied on.
Value* rows(GraphBuilder& builder, Value* data, std::size_t dim, const Taken& taken) {
  const Dim &extent = data->type.dims[dim], end = taken.begin + taken.length;
  if (taken.begin == Dim(0) && taken.length == extent) return data;
  builder.require_equal(min(extent, end), end);
  const std::vector<std::int64_t> axes = {static_cast<std::int64_t>(dim)}, steps = {1};
  return builder.add("Slice", {data},
                     {{"starts", std::vector<Dim>{taken.begin}}, {"ends", std::vector<Dim>{end}}, {"axes", axes}, {"steps", steps}});
}

// The parts of an index tuple [.., L] that was put together by Concat, each over the leading dimensions.
std::vector<Value*> tuple_parts(const Value* indices) {
  const Node* concat = made_by(indices, "Concat");
  const auto length = last_dim(indices)->value();
  if (!length) return {};
  if (!concat && *length == 1) return {const_cast<Value*>(indices)};
  const std::int64_t last = indices->type.rank() - 1;
  if (!concat || (concat->attributes.integer("axis") != last && concat->attributes.integer("axis") != -1)) return {};
  for (const Value* part : concat->operands())
    if (*last_dim(part) != Dim(1)) return {};
  return concat->operands();
}

// GatherND by positions along different dimensions, in order: slices, and dimensions of 1 or broadcast between them.
Value* as_slices(Node& node) {
  if (node.attributes.integer("batch_dims") != 0) return nullptr;
  const std::vector<Value*> parts = tuple_parts(node.operand(1));
  if (parts.empty()) return nullptr;
  std::vector<Taken> taken;
  for (const Value* part : parts) {
    const auto t = taken_by(part);
    if (!t || (!taken.empty() && t->along <= taken.back().along)) return nullptr;
    taken.push_back(*t);
  }
  GraphBuilder builder = builder_before(node);
  Value* data = node.operand(0);
  for (std::size_t i = 0; i < taken.size(); ++i) data = rows(builder, data, i, taken[i]);
  const std::vector<Dim>& dims = node.result()->type.dims;
  const std::size_t indexed = node.operand(1)->type.dims.size() - 1;
  std::vector<Dim> narrow(indexed, Dim(1));
  for (const Taken& t : taken) narrow[t.along] = t.length;
  narrow.insert(narrow.end(), dims.begin() + static_cast<std::ptrdiff_t>(indexed), dims.end());
  return expand(builder, reshape(builder, data, narrow), dims);
}

// Gather of all rows in order, with an index of several dimensions: a Reshape; of some rows in order: a Slice.
Value* as_reshape(Node& node) {
  Value* data = node.operand(0);
  if (node.attributes.dim("whole") != Dim(0)) return nullptr;
  const auto axis = static_cast<std::size_t>(normalize_axis(node.attributes.integer("axis"), data->type.rank()));
  const Value* index = node.operand(1);
  const auto affine = affine_of(index);
  if (!affine || affine->moving().empty()) return nullptr;
  const std::vector<Dim>& dims = index->type.dims;
  std::vector<Dim> narrow(dims.size(), Dim(1));
  Dim count = 1;
  const std::vector<std::size_t> moving = affine->moving();
  for (std::size_t i = moving.size(); i-- > 0;) {  // row-major
    if (affine->steps[moving[i]] != count) return nullptr;
    count = count * dims[moving[i]];
    narrow[moving[i]] = dims[moving[i]];
  }
  const Taken taken{0, affine->offset, count};
  const bool whole = affine->offset == Dim(0) && count == data->type.dims[axis];
  // Rows of a weight stay a lookup: a rank then reads only its own.
  if (!whole && (data->weight() || moving.size() > 1 || affine->offset.bounds({}).min < 0)) return nullptr;
  GraphBuilder builder = builder_before(node);
  data = rows(builder, data, axis, taken);
  std::vector<Dim> open(data->type.dims.begin(), data->type.dims.begin() + static_cast<std::ptrdiff_t>(axis));
  open.insert(open.end(), narrow.begin(), narrow.end());
  open.insert(open.end(), data->type.dims.begin() + static_cast<std::ptrdiff_t>(axis) + 1, data->type.dims.end());
  return expand(builder, reshape(builder, data, open), node.result()->type.dims);
}

bool rewrite(Node& node) {
  if (node.results().size() != 1 || !node.regions().empty()) return false;
  Value* with = nullptr;
  if (node.is("Gather")) with = as_reshape(node);
  else if (node.is("GatherND")) with = as_slices(node);
  else if (node.result()->type.dtype == DType::boolean) with = as_truth(node);
  else with = as_iota(node);
  if (!with) return false;
  node.graph().replace_uses(node.result(), with);
  return true;
}

}  // namespace

bool fold_positions(Module& module, const PassOptions&) { return for_each_node(module, rewrite); }

}  // namespace tandem::passes
