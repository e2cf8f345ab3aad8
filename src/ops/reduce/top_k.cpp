// The k largest or smallest elements along an axis, and where they are.
#include "ops/reduce/top_k.h"

#include <algorithm>
#include <numeric>

#include "core/check.h"
#include "core/tensor.h"
#include "graph/builder.h"
#include "ops/along_axis.h"
#include "ops/layout/strided.h"
#include "ops/ops.h"
#include "ops/shape_rules.h"

namespace tandem {
namespace {

std::vector<Type> infer(const OpCall& call) {
  require_dtype(call, 0, is_number, "a number type");
  const auto axis = static_cast<std::size_t>(axis_of(call));
  const Dim& k = call.attributes.dim("k");
  Type values = call.operand(0);
  if (k.bounds({}).max < 0) fail(ErrorCode::invalid_model, "k is {}, expected 0 or more", k.to_string());
  if ((values.dims[axis] - k).bounds({}).max < 0)
    fail(ErrorCode::invalid_model, "k is {}, and axis {} has no more than {} elements", k.to_string(), axis, values.dims[axis].to_string());
  values.dims[axis] = k;
  return {values, {DType::i64, values.dims}};
}

// The axis has another extent on either side; along the others lines are independent.
ShardingRule rule(const OpCall& call) {
  using Role = ShardingRule::Role;
  ShardingRule rule{.operands = {{}}, .results = {{}}};
  for (int d = 0; d < call.operand(0).rank(); ++d) {
    const bool searched = d == axis_of(call);
    const int factor = rule.add(call.operand(0).dims[static_cast<std::size_t>(d)], searched ? Role::whole : Role::parallel);
    rule.operands[0].push_back({factor});
    rule.results[0].push_back({searched ? rule.add(call.attributes.dim("k"), Role::whole) : factor});
  }
  rule.results.push_back(rule.results[0]);
  return rule;
}

// NaN is larger than any number, as numpy sorts.
template <typename T>
bool less(T a, T b) {
  return a == a && (b != b || a < b);
}

// The indices of the first k in order; equal elements stay in theirs.
template <typename At>
void select(const TopKView& v, std::vector<std::int64_t>& order, const At& at) {
  std::iota(order.begin(), order.end(), 0);
  std::ranges::stable_sort(order, [&](std::int64_t a, std::int64_t b) { return v.largest ? less(at(b), at(a)) : less(at(a), at(b)); });
}

std::vector<Tensor> evaluate(const OpCall& call, std::span<const Tensor> in) {
  const TopKView v = top_k_view(call);
  const Tensor& x = in[0];
  Tensor values(v.dtype, shape_of(call.results.at(0))), indices(DType::i64, shape_of(call.results.at(1)));
  std::vector<std::int64_t> order(static_cast<std::size_t>(v.extent));
  for (std::int64_t line = 0; line < v.lines(); ++line) {
    const std::int64_t from = v.first(line), to = v.first_result(line);
    if (is_float(v.dtype)) select(v, order, [&](std::int64_t j) { return x.at(from + j * v.inner); });
    else if (v.dtype == DType::u64)
      select(v, order, [&](std::int64_t j) { return static_cast<std::uint64_t>(x.int_at(from + j * v.inner)); });
    else select(v, order, [&](std::int64_t j) { return x.int_at(from + j * v.inner); });
    for (std::int64_t i = 0; i < v.k; ++i) {
      const std::int64_t index = order[static_cast<std::size_t>(i)];
      copy_element(v.dtype, x.data(), from + index * v.inner, values.mutable_data(), to + i * v.inner);
      indices.mutable_as<std::int64_t>()[to + i * v.inner] = index;
    }
  }
  return {values, indices};
}

Dim imported_k(const ForeignNode& node, GraphBuilder& builder) {
  if (node.opset < 10) {
    if (!node.has("k")) fail(ErrorCode::invalid_model, "attribute k is missing");
    return node.integer("k", 0);
  }
  const DimContent k = builder.require_dims(node.required(1), "k");
  if (k.size() != 1) fail(ErrorCode::invalid_model, "k holds {} numbers, expected one", k.size());
  return k[0];
}

std::vector<Value*> import(const ForeignNode& node, GraphBuilder& builder) {
  Value* x = node.required(0);
  return builder.add_all("TopK", {x},
                         {{"axis", std::int64_t{normalize_axis(node.integer("axis", -1), x->type.rank())}},
                          {"k", imported_k(node, builder)},
                          {"largest", node.integer("largest", 1) != 0}});
}

}  // namespace

TopKView top_k_view(const OpCall& call) {
  const AxisView axis(shape_of(call.operand(0)), axis_of(call));
  const std::int64_t k = call.attributes.dim("k").constant();
  if (k < 0 || k > axis.extent) fail(ErrorCode::invalid_argument, "k is {}, expected 0 to {}, the elements along the axis", k, axis.extent);
  return {call.operand(0).dtype, axis.outer, axis.extent, axis.inner, k, call.attributes.boolean("largest")};
}

const OpDef ops::TopK = {
    .name = "TopK",
    .doc =
        "The k largest (or smallest) elements along `axis`, sorted, and their indices (i64); of equal elements the one with the lower "
        "index comes first, and NaN is larger than any number, as numpy sorts: first among the largest, last among the smallest.",
    .fields = {{"axis", FieldKind::integer, std::int64_t{-1}, {}, "the dimension searched"},
               {"k", FieldKind::dim, Dim(1), {}, "how many elements, at most the extent"},
               {"largest", FieldKind::boolean, true, {}, "whether the largest, else the smallest"}},
    .operands = {{"x"}},
    .results = {{"values"}, {"indices"}},
    .min_operands = 1,
    .max_operands = 1,
    .infer = infer,
    .rule = rule,
    .evaluate = evaluate,
    .onnx = {{"TopK", 1, import}},
};

}  // namespace tandem
