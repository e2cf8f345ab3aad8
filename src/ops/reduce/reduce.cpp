#include <algorithm>
#include <cmath>
#include <numeric>

#include "core/tensor.h"
#include "graph/graph.h"
#include "ops/ops.h"
#include "ops/pointwise/define.h"
#include "ops/pointwise/scalar.h"

namespace tandem::ops {
namespace {

const std::vector<std::string> kKinds = {"sum", "mean", "max", "min", "prod", "l1", "l2", "sum_square", "log_sum", "log_sum_exp"};

std::vector<int> axes_of(const OpCall& call) { return normalize_axes(call.attributes.integers("axes"), call.operand(0).rank()); }

bool contains(const std::vector<int>& axes, int axis) { return std::ranges::binary_search(axes, axis); }

std::vector<Type> infer(const OpCall& call) {
  require_dtype(call, 0, is_number, "a number type");
  const Type& x = call.operand(0);
  const std::vector<int> axes = axes_of(call);
  Type y{x.dtype, {}};
  for (int d = 0; d < x.rank(); ++d) {
    if (!contains(axes, d)) y.dims.push_back(x.dims[static_cast<std::size_t>(d)]);
    else if (call.attributes.boolean("keepdims")) y.dims.emplace_back(1);
  }
  return {y};
}

// What combines the results of parts, if something does: parts of a mean are not equally long where blocks are padded.
std::optional<Reduction> combined_by(const std::string& kind) {
  if (kind == "sum" || kind == "l1" || kind == "sum_square") return Reduction::sum;
  if (kind == "max") return Reduction::max;
  if (kind == "min") return Reduction::min;
  if (kind == "prod") return Reduction::prod;
  return std::nullopt;
}

ShardingRule rule(const OpCall& call) {
  using Role = ShardingRule::Role;
  const std::string& kind = call.attributes.text("kind");
  const auto combined = combined_by(kind);
  const std::vector<int> axes = axes_of(call);
  ShardingRule rule{.operands = {{}}, .results = {{}}, .linear = {kind == "sum" || (kind == "mean" && is_float(call.operand(0).dtype))}};
  for (int d = 0; d < call.operand(0).rank(); ++d) {
    const bool reduced = contains(axes, d);
    const int factor = rule.add(call.operand(0).dims[static_cast<std::size_t>(d)],
                                !reduced   ? Role::parallel
                                : combined ? Role::contract
                                           : Role::whole,
                                combined.value_or(Reduction::sum));
    rule.operands[0].push_back({factor});
    if (!reduced) rule.results[0].push_back({factor});
    else if (call.attributes.boolean("keepdims")) rule.results[0].emplace_back();
  }
  return rule;
}

double reduced(const std::string& kind, const std::vector<double>& x) {
  const auto total = [&](auto f) {
    double sum = 0;
    for (const double v : x) sum += f(v);
    return sum;
  };
  const auto sum = [&] { return total([](double v) { return v; }); };
  const auto top = [&] { return std::accumulate(x.begin(), x.end(), -INFINITY, scalar::larger<double>); };
  if (kind == "sum") return sum();
  if (kind == "mean") return sum() / static_cast<double>(x.size());
  if (kind == "max") return top();
  if (kind == "min") return std::accumulate(x.begin(), x.end(), INFINITY, scalar::smaller<double>);
  if (kind == "prod") return std::accumulate(x.begin(), x.end(), 1.0, std::multiplies<>());
  if (kind == "l1") return total([](double v) { return std::fabs(v); });
  if (kind == "l2") return std::sqrt(total([](double v) { return v * v; }));
  if (kind == "sum_square") return total([](double v) { return v * v; });
  if (kind == "log_sum") return std::log(sum());
  const double shift = std::isfinite(top()) ? top() : 0;
  return shift + std::log(total([&](double v) { return std::exp(v - shift); }));
}

std::int64_t reduced(const std::string& kind, const std::vector<std::int64_t>& x) {
  std::int64_t result = kind == "prod" ? 1 : 0;
  if (kind == "max" || kind == "min") {
    if (x.empty()) fail(ErrorCode::invalid_argument, "the {} of no integers", kind);
    result = kind == "max" ? std::ranges::max(x) : std::ranges::min(x);
  }
  for (const std::int64_t v : x) {
    if (kind == "sum" || kind == "mean") result = scalar::plus(result, v);
    if (kind == "prod") result = scalar::times(result, v);
    if (kind == "l1") result = scalar::plus(result, v < 0 ? scalar::negate(v) : v);
    if (kind == "sum_square") result = scalar::plus(result, scalar::times(v, v));
  }
  return kind == "mean" ? scalar::divide(result, static_cast<std::int64_t>(x.size())) : result;
}

// l2 and the logarithms of integers go through double and truncate.
bool exact_on_integers(const std::string& kind) { return kind != "l2" && kind != "log_sum" && kind != "log_sum_exp"; }

std::vector<Tensor> evaluate(const OpCall& call, std::span<const Tensor> in) {
  const Tensor& x = in[0];
  const std::string& kind = call.attributes.text("kind");
  const std::vector<int> axes = axes_of(call);
  const Shape strides = row_major_strides(x.shape());
  Shape kept, kept_strides, lost, lost_strides;
  for (std::size_t d = 0; d < x.shape().size(); ++d) {
    const bool gone = contains(axes, static_cast<int>(d));
    (gone ? lost : kept).push_back(x.shape()[d]);
    (gone ? lost_strides : kept_strides).push_back(strides[d]);
  }
  Tensor y(x.dtype(), shape_of(call.results.at(0)));
  const bool exact = !is_float(x.dtype()) && exact_on_integers(kind);
  for_each_offset<1>(kept, {kept_strides}, [&](std::int64_t i, const auto& start) {
    std::vector<double> values;
    std::vector<std::int64_t> ints;
    for_each_offset<1>(lost, {lost_strides}, [&](std::int64_t, const auto& at) {
      if (exact) ints.push_back(x.int_at(start[0] + at[0]));
      else values.push_back(x.at(start[0] + at[0]));
    });
    if (exact) store_int(y.dtype(), y.mutable_data(), i, reduced(kind, ints));
    else store_element(y.dtype(), y.mutable_data(), i, reduced(kind, values));
  });
  return {y};
}

// Products and sums of extents: what Size and flattening come down to.
std::optional<DimContent> fold(const OpCall& call, std::span<const std::optional<DimContent>> contents) {
  const std::string& kind = call.attributes.text("kind");
  const auto shape = known_shape(call.operand(0).dims);
  const bool followed = kind == "sum" || kind == "prod" || kind == "max" || kind == "min";
  if (!followed || !contents[0] || contents[0]->empty() || !shape || shape->size() != 1 || axes_of(call).size() != 1) return std::nullopt;
  Dim result = contents[0]->front();
  for (std::size_t i = 1; i < contents[0]->size(); ++i) {
    const Dim& next = (*contents[0])[i];
    if (kind == "sum") result = result + next;
    else if (kind == "prod") result = result * next;
    else if (kind == "max") result = max(result, next);
    else result = min(result, next);
  }
  return DimContent{result};
}

// Axes are an attribute in early opsets and input 1 in later ones; none means all, unless the node says otherwise.
std::vector<Value*> import_reduce(const char* kind, const ForeignNode& node, GraphBuilder& builder) {
  Value* x = node.required(0);
  std::vector<std::int64_t> axes;
  if (Value* given = node.input(1)) axes = builder.require_ints(given, "axes");
  else axes = node.integers("axes", {});
  if (axes.empty()) {
    if (node.integer("noop_with_empty_axes", 0) != 0) return {x};
    for (int d = 0; d < x->type.rank(); ++d) axes.push_back(d);
  }
  const std::vector<int> sorted = normalize_axes(axes, x->type.rank());
  const NamedAttributes attributes = {{"kind", std::string(kind)},
                                      {"axes", std::vector<std::int64_t>(sorted.begin(), sorted.end())},
                                      {"keepdims", node.integer("keepdims", 1) != 0}};
  return {builder.add("Reduce", {x}, attributes)};
}

}  // namespace

const OpDef Reduce = {
    .name = "Reduce",
    .doc = "The sum, mean, max, min, prod, l1, l2, sum_square, log_sum or log_sum_exp of x over some axes.",
    .fields = {{"kind", FieldKind::text, std::string("sum"), kKinds, "which of them"},
               {"axes", FieldKind::integers, std::vector<std::int64_t>{}, {}, "the dimensions reduced"},
               {"keepdims", FieldKind::boolean, true, {}, "whether a reduced dimension stays with extent 1"}},
    .operands = {{"x"}},
    .min_operands = 1,
    .max_operands = 1,
    .infer = infer,
    .rule = rule,
    .evaluate = evaluate,
    .fold = fold,
    .onnx = {{"ReduceSum", 1, [](const ForeignNode& n, GraphBuilder& b) { return import_reduce("sum", n, b); }},
             {"ReduceMean", 1, [](const ForeignNode& n, GraphBuilder& b) { return import_reduce("mean", n, b); }},
             {"ReduceMax", 1, [](const ForeignNode& n, GraphBuilder& b) { return import_reduce("max", n, b); }},
             {"ReduceMin", 1, [](const ForeignNode& n, GraphBuilder& b) { return import_reduce("min", n, b); }},
             {"ReduceProd", 1, [](const ForeignNode& n, GraphBuilder& b) { return import_reduce("prod", n, b); }},
             {"ReduceL1", 1, [](const ForeignNode& n, GraphBuilder& b) { return import_reduce("l1", n, b); }},
             {"ReduceL2", 1, [](const ForeignNode& n, GraphBuilder& b) { return import_reduce("l2", n, b); }},
             {"ReduceSumSquare", 1, [](const ForeignNode& n, GraphBuilder& b) { return import_reduce("sum_square", n, b); }},
             {"ReduceLogSum", 1, [](const ForeignNode& n, GraphBuilder& b) { return import_reduce("log_sum", n, b); }},
             {"ReduceLogSumExp", 1, [](const ForeignNode& n, GraphBuilder& b) { return import_reduce("log_sum_exp", n, b); }}},
};

}  // namespace tandem::ops
