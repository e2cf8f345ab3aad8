#include <algorithm>
#include <cmath>

#include "core/check.h"
#include "graph/graph.h"
#include "ops/layout/strided.h"
#include "ops/ops.h"
#include "ops/shape_rules.h"

namespace tandem {
namespace {

constexpr std::int64_t kRangeLimit = std::int64_t{1} << 24;  // elements of a float range that is written out

std::vector<Type> infer(const OpCall& call) {
  const Dim& extent = call.attributes.dim("extent");
  if (extent.is_constant() && extent.constant() < 0) fail(ErrorCode::invalid_model, "extent {} is negative", extent.constant());
  return {{call.attributes.get<DType>("dtype"), {extent}}};
}

// A rank counts from where its block starts.
void localize(Node& node, const Mesh& mesh) {
  const Dim extent = node.attributes.dim("extent");
  const DimSharding& factors = node.result()->sharding.dim(0);
  const Dim local = local_extent(extent, factors, mesh);
  if (!node.result()->sharding.is_split(0)) return;
  for (std::size_t i = 1; i < factors.size(); ++i) check(split_count(factors[i], mesh) == 1, "an Iota is split by blocks");
  node.attributes.set("offset", node.attributes.dim("offset") + split_index(factors[0], mesh) * local);
  node.attributes.set("extent", local);
}

std::vector<Tensor> evaluate(const OpCall& call, std::span<const Tensor>) {
  Tensor out(call.attributes.get<DType>("dtype"), shape_of(call.results.at(0)));
  const std::int64_t offset = call.attributes.dim("offset").constant();
  std::byte* to = out.mutable_data();
  for (std::int64_t i = 0; i < out.count(); ++i) store_int(out.dtype(), to, i, offset + i);
  return {out};
}

std::optional<DimContent> fold(const OpCall& call, std::span<const std::optional<DimContent>>) {
  const auto shape = content_shape(call.results.at(0).dims);
  if (!shape || is_float(call.results[0].dtype)) return std::nullopt;
  DimContent out;
  for (std::int64_t i = 0; i < shape->at(0); ++i) out.push_back(call.attributes.dim("offset") + Dim(i));
  return out;
}

Value* iota(GraphBuilder& b, const Dim& offset, const Dim& extent, DType dtype) {
  return b.add("Iota", {}, {{"offset", offset}, {"extent", extent}, {"dtype", dtype}});
}

// A range of floats: all three bounds must be constants.
Value* float_range(const ForeignNode& node, GraphBuilder& b) {
  std::array<double, 3> bounds{};
  for (std::size_t i = 0; i < 3; ++i) {
    const auto value = b.constant_of(node.required(i));
    if (!value || value->count() != 1) fail(ErrorCode::unsupported, "a range of floats needs constant bounds");
    bounds[i] = value->at(0);
  }
  const auto [start, limit, delta] = bounds;
  const double steps = std::ceil((limit - start) / delta);
  if (!(steps <= static_cast<double>(kRangeLimit)))
    fail(ErrorCode::unsupported, "a range from {} to {} by {} is too long", start, limit, delta);
  std::vector<double> values;
  for (double i = 0; i < steps; ++i) values.push_back(start + i * delta);
  return b.constant(Tensor::of(node.required(0)->type.dtype, {static_cast<std::int64_t>(values.size())}, values));
}

Dim bound_of(const ForeignNode& node, GraphBuilder& b, std::size_t input, std::string_view what) {
  const DimContent contents = b.require_dims(node.required(input), what);
  if (contents.size() != 1) fail(ErrorCode::invalid_model, "{} must be a scalar", what);
  return contents[0];
}

// start, start+delta, … before limit = Iota · delta + start.
std::vector<Value*> import_range(const ForeignNode& node, GraphBuilder& b) {
  const DType dtype = node.required(0)->type.dtype;
  if (is_float(dtype)) return {float_range(node, b)};
  const Dim start = bound_of(node, b, 0, "start"), limit = bound_of(node, b, 1, "limit"), delta = bound_of(node, b, 2, "delta");
  if (!delta.is_constant() || delta.constant() == 0)
    fail(ErrorCode::unsupported, "delta is {}, expected a constant other than 0", delta.to_string());
  const std::int64_t step = delta.constant();
  const Dim count = max_in(b, step > 0 ? ceil_div(limit - start, step) : ceil_div(start - limit, -step), 0);
  if (step == 1) return {iota(b, start, count, dtype)};
  Value* scaled = b.add("Mul", {iota(b, 0, count, dtype), b.dim_value({delta}, {}, dtype)});
  return {start == Dim(0) ? scaled : b.add("Add", {scaled, b.dim_value({start}, {}, dtype)})};
}

}  // namespace

const OpDef ops::Iota = {
    .name = "Iota",
    .doc = "offset, offset+1, … of the given extent; the only value that may depend on the rank's coordinates.",
    .fields = {{.name = "offset", .kind = FieldKind::dim, .initial = Dim(0), .doc = "the first number; may hold coordinates such as @cp"},
               {.name = "extent", .kind = FieldKind::dim, .initial = Dim(0), .doc = "how many"},
               {.name = "dtype", .kind = FieldKind::dtype, .initial = DType::i64, .doc = "of the result"}},
    .infer = infer,
    .rule =
        [](const OpCall& call) {
          ShardingRule rule;
          rule.results = {{{rule.add(call.results.at(0).dims[0])}}};
          return rule;
        },
    .localize = localize,
    .evaluate = evaluate,
    .fold = fold,
    .onnx = {{.op_type = "Range", .since = 11, .import = import_range}},
};

}  // namespace tandem
