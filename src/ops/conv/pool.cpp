// MaxPool and AveragePool, and the pools over whole images, which are reductions.
#include "ops/conv/pool.h"

#include <limits>

#include "core/check.h"
#include "core/tensor.h"
#include "graph/graph.h"
#include "ops/ops.h"
#include "ops/pointwise/scalar.h"
#include "ops/shape_rules.h"

namespace tandem {
namespace {

using namespace pool;

bool is_pooled(DType type) { return is_float(type) || type == DType::i8 || type == DType::u8; }

std::vector<Type> infer(const OpCall& given) {
  const OpCall call = window::channels_first(given, {0});
  if (call.op->name == "MaxPool") require_dtype(call, 0, is_pooled, "a float type, i8 or u8");
  else require_dtype(call, 0, is_float, "a float type");
  const Type& x = require_rank(call, 0, 3, 2 + window::kMaxSpatial);
  Type y{x.dtype, {x.dims[0], x.dims[1]}};
  const std::vector<Dim> spatial = window::result_extents(call, call.attributes.integers("kernel"), call.attributes.boolean("ceil"));
  y.dims.insert(y.dims.end(), spatial.begin(), spatial.end());
  if (window::is_channels_last(given.attributes)) y.dims = window::channels_last(y.dims);
  return {y};
}

ShardingRule rule(const OpCall& given) {
  const OpCall call = window::channels_first(given, {0});
  const Type &x = call.operand(0), &y = call.results.at(0);
  ShardingRule rule{.operands = {{}}, .results = {{}}, .linear = {call.op->name == "AveragePool"}};
  for (std::size_t d = 0; d < x.dims.size(); ++d) {
    const auto role = d < 2 ? ShardingRule::Role::parallel : ShardingRule::Role::whole;
    const int factor = rule.add(x.dims[d], role);
    rule.operands[0].push_back({factor});
    rule.results[0].push_back({d < 2 ? factor : rule.add(y.dims[d], role)});
  }
  if (window::is_channels_last(given.attributes))
    for (auto* dims : {&rule.operands[0], &rule.results[0]}) *dims = window::channels_last(*dims);
  return rule;
}

double largest(const Problem& p, const std::vector<double>& x, std::int64_t image, const std::array<std::int64_t, 3>& o) {
  double best = -std::numeric_limits<double>::infinity();
  p.each_inside(o, [&](std::int64_t i) { best = scalar::larger(best, x[static_cast<std::size_t>(image * p.in_count() + i)]); });
  return best;
}

double mean(const Problem& p, const std::vector<double>& x, std::int64_t image, const std::array<std::int64_t, 3>& o) {
  double sum = 0;
  p.each_inside(o, [&](std::int64_t i) { sum += x[static_cast<std::size_t>(image * p.in_count() + i)]; });
  return sum / static_cast<double>(p.divisor(o));
}

std::vector<Tensor> evaluate(const OpCall& call, std::span<const Tensor> in) {
  if (window::is_channels_last(call.attributes)) {
    const std::vector<Tensor> first = {window::channels_first(in[0])};
    return {window::channels_last(evaluate(window::channels_first(call, {0}), first).at(0))};
  }
  const Problem p = problem_of(call);
  const std::vector<double> x = in[0].to_doubles();
  Tensor y(in[0].dtype(), shape_of(call.results.at(0)));
  std::byte* data = y.mutable_data();
  for (std::int64_t i = 0; i < y.count(); ++i) {
    const std::int64_t image = i / p.out_count();
    const std::array<std::int64_t, 3> o = p.position(i % p.out_count());
    store_element(y.dtype(), data, i, p.max ? largest(p, x, image, o) : mean(p, x, image, o));
  }
  return {y};
}

std::vector<Value*> import_window(std::string_view op, const ForeignNode& node, GraphBuilder& builder) {
  Value* x = node.required(0);
  for (std::size_t i = 1; i < node.outputs.size(); ++i)
    if (!node.outputs[i].empty()) fail(ErrorCode::unsupported, "output {} (the places of the largest) is not supported", i);
  const auto kernel = node.integers("kernel_shape", {});
  NamedAttributes attributes = window::import(node, x->type, kernel);
  attributes.emplace_back("kernel", kernel);
  attributes.emplace_back("ceil", node.integer("ceil_mode", 0) != 0);
  if (op == "AveragePool") attributes.emplace_back("count_padding", node.integer("count_include_pad", 0) != 0);
  return {builder.add(op, {x}, attributes)};
}

std::vector<Value*> import_global(std::string_view kind, const ForeignNode& node, GraphBuilder& builder) {
  Value* x = node.required(0);
  if (x->type.rank() < 3) fail(ErrorCode::invalid_model, "x is {}, expected rank 3 or more", x->type.to_string());
  std::vector<std::int64_t> axes;
  for (int d = 2; d < x->type.rank(); ++d) axes.push_back(d);
  return {builder.add("Reduce", {x}, {{"kind", std::string(kind)}, {"axes", axes}, {"keepdims", true}})};
}

OpDef define(std::string_view name, std::string_view doc, std::vector<OnnxRule> onnx) {
  std::vector<Field> fields = {
      {"kernel", FieldKind::integers, std::vector<std::int64_t>{}, {}, "taps of the window, per spatial dimension"}};
  for (Field& field : window::fields()) fields.push_back(std::move(field));
  fields.push_back(window::layout_field());
  fields.push_back({"ceil", FieldKind::boolean, false, {}, "the last window may hang over the end, as long as it begins before it"});
  if (name == "AveragePool") fields.push_back({"count_padding", FieldKind::boolean, false, {}, "divide by the taps in the padding too"});
  return {.name = name,
          .doc = doc,
          .fields = std::move(fields),
          .operands = {{"x", "[n,c,spatial…], with layout channels_last [n,spatial…,c]"}},
          .min_operands = 1,
          .max_operands = 1,
          .infer = infer,
          .rule = rule,
          .evaluate = evaluate,
          .onnx = std::move(onnx)};
}

}  // namespace

Problem pool::problem_of(const OpCall& given) {
  const OpCall call = window::channels_first(given, {0});
  const Shape x = shape_of(call.operand(0));
  const bool last = window::is_channels_last(given.attributes);
  return {.dtype = call.operand(0).dtype,
          .max = call.op->name == "MaxPool",
          .count_padding = call.attributes.has("count_padding") && call.attributes.boolean("count_padding"),
          .images = last ? x[0] : x[0] * x[1],
          .channels = last ? x[1] : 1,
          .axes = window::axes_of(call, call.attributes.integers("kernel"))};
}

const OpDef ops::AveragePool =
    define("AveragePool",
           "y[n,c,o…] = the mean of x[n,c,o·stride + k·dilation − pad…] over taps k…, those in the padding left out unless count_padding.",
           {{"AveragePool", 7, [](const ForeignNode& n, GraphBuilder& b) { return import_window("AveragePool", n, b); }},
            {"GlobalAveragePool", 1, [](const ForeignNode& n, GraphBuilder& b) { return import_global("mean", n, b); }}});
const OpDef ops::MaxPool =
    define("MaxPool", "y[n,c,o…] = the largest of x[n,c,o·stride + k·dilation − pad…] over taps k…, those in the padding left out.",
           {{"MaxPool", 1, [](const ForeignNode& n, GraphBuilder& b) { return import_window("MaxPool", n, b); }},
            {"GlobalMaxPool", 1, [](const ForeignNode& n, GraphBuilder& b) { return import_global("max", n, b); }}});

}  // namespace tandem
