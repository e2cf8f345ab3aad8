#include "ops/conv/resize.h"

#include <algorithm>
#include <cmath>

#include "core/tensor.h"
#include "graph/graph.h"
#include "ops/layout/strided.h"
#include "ops/ops.h"
#include "ops/pointwise/define.h"

namespace tandem {
namespace {

using namespace resize;

std::vector<Type> infer(const OpCall& call) {
  Type y = call.operand(0);
  const auto& sizes = call.attributes.dims("sizes");
  const Tensor& scales = call.attributes.get<Tensor>("scales");
  if (call.attributes.text("mode") != "nearest") require_dtype(call, 0, is_float, "a float type");
  if (sizes.size() > y.dims.size()) fail(ErrorCode::invalid_model, "{} sizes for {}", sizes.size(), y.to_string());
  if (scales.count() != 0 && scales.count() != static_cast<std::int64_t>(sizes.size()))
    fail(ErrorCode::invalid_model, "{} scales for {} sizes", scales.count(), sizes.size());
  for (std::int64_t i = 0; i < scales.count(); ++i)
    if (!(scales.at(i) > 0) || !std::isfinite(scales.at(i))) fail(ErrorCode::invalid_model, "scale {} is not positive", scales.at(i));
  std::copy(sizes.begin(), sizes.end(), y.dims.end() - static_cast<std::ptrdiff_t>(sizes.size()));
  return {y};
}

ShardingRule rule(const OpCall& call) {
  const Type &x = call.operand(0), &y = call.results.at(0);
  const std::size_t kept = x.dims.size() - call.attributes.dims("sizes").size();
  ShardingRule rule{.operands = {{}}, .results = {{}}, .linear = {call.attributes.text("mode") != "nearest"}};
  for (std::size_t d = 0; d < x.dims.size(); ++d) {
    const auto role = d < kept ? ShardingRule::Role::parallel : ShardingRule::Role::whole;
    const int factor = rule.add(x.dims[d], role);
    rule.operands[0].push_back({factor});
    rule.results[0].push_back({d < kept ? factor : rule.add(y.dims[d], role)});
  }
  return rule;
}

// Where row o of the result lies among those of the operand.
double position(const std::string& mode, double o, double in, double out, double scale) {
  if (mode == "asymmetric") return o / scale;
  if (mode == "align_corners") return out <= 1 ? 0 : o * (in - 1) / (in * scale - 1);  // in·scale may be no whole number
  if (mode == "pytorch_half_pixel") return out > 1 ? (o + 0.5) / scale - 0.5 : 0;
  if (mode == "half_pixel_symmetric") {
    const double adjustment = out / (scale * in), center = in / 2;
    return center * (1 - adjustment) + (o + 0.5) / scale - 0.5;
  }
  return (o + 0.5) / scale - 0.5;
}

double nearest(const std::string& mode, double at) {
  if (mode == "floor") return std::floor(at);
  if (mode == "ceil") return std::ceil(at);
  return mode == "round_prefer_ceil" ? std::floor(at + 0.5) : std::ceil(at - 0.5);
}

// Keys' cubic at distance d.
double cubic(double d, double a) {
  d = std::fabs(d);
  if (d <= 1) return ((a + 2) * d - (a + 3)) * d * d + 1;
  return d < 2 ? ((d - 5) * d + 8) * d * a - 4 * a : 0;
}

void add_row(Table& table, const Attributes& attributes, double at) {
  if (std::isnan(at)) at = 0;  // scales that have nothing to do with the sizes
  const std::string& mode = attributes.text("mode");
  const auto clamped = [&](double row) { return static_cast<std::int64_t>(std::clamp(row, 0.0, static_cast<double>(table.in - 1))); };
  if (mode == "nearest") {
    table.rows.push_back(clamped(nearest(attributes.text("nearest"), at)));
    table.weights.push_back(1);
    return;
  }
  const double below = std::floor(at), part = at - below;
  if (mode == "linear") {
    for (const int t : {0, 1}) {
      table.rows.push_back(clamped(below + t));
      table.weights.push_back(t == 0 ? 1 - part : part);
    }
    return;
  }
  double total = 0;
  for (int t = -1; t <= 2; ++t) {
    const double row = below + t;
    const bool outside = attributes.boolean("exclude_outside") && (row < 0 || row >= static_cast<double>(table.in));
    table.rows.push_back(clamped(row));
    table.weights.push_back(outside ? 0 : cubic(part - t, attributes.real("cubic_a")));
    total += table.weights.back();
  }
  if (attributes.boolean("exclude_outside"))
    for (std::size_t i = table.weights.size() - 4; i < table.weights.size(); ++i) table.weights[i] /= total;
}

Table table_of(const Attributes& attributes, std::int64_t in, std::int64_t out, std::optional<double> scale) {
  const std::string& mode = attributes.text("mode");
  Table table{.in = in, .out = out, .taps = mode == "nearest" ? 1 : mode == "linear" ? 2 : 4};
  const double factor = scale ? *scale : static_cast<double>(out) / static_cast<double>(in);
  for (std::int64_t o = 0; o < out; ++o)
    add_row(table, attributes,
            position(attributes.text("coordinates"), static_cast<double>(o), static_cast<double>(in), static_cast<double>(out), factor));
  return table;
}

std::vector<Tensor> evaluate(const OpCall& call, std::span<const Tensor> in) {
  const Problem p = problem_of(call);
  const Shape from = row_major_strides(in[0].shape());
  Tensor y(p.dtype, shape_of(call.results.at(0)));
  const Shape to = row_major_strides(y.shape());
  const std::size_t kept = y.shape().size() - p.tables.size();
  std::byte* data = y.mutable_data();
  for (std::int64_t i = 0; i < y.count(); ++i) {
    std::int64_t start = 0;
    for (std::size_t d = 0; d < kept; ++d) start += i / to[d] % y.shape()[d] * from[d];
    std::vector<std::pair<std::int64_t, double>> taps = {{start, 1.0}};
    for (std::size_t d = kept; d < y.shape().size(); ++d) {
      const Table& table = p.tables[d - kept];
      std::vector<std::pair<std::int64_t, double>> next;
      for (const auto& [at, weight] : taps)
        for (std::int64_t t = 0; t < table.taps; ++t) {
          const auto k = static_cast<std::size_t>(i / to[d] % table.out * table.taps + t);
          if (table.weights[k] != 0) next.emplace_back(at + table.rows[k] * from[d], weight * table.weights[k]);
        }
      taps = std::move(next);
    }
    if (p.copies) {
      copy_element(p.dtype, in[0].data(), taps[0].first, data, i);
      continue;
    }
    double sum = 0;
    for (const auto& [at, weight] : taps) sum += in[0].at(at) * weight;
    store_element(p.dtype, data, i, sum);
  }
  return {y};
}

// ⌊extent · scale⌋; of a symbol where the scale is a simple fraction.
Dim scaled(const Dim& extent, double scale) {
  if (extent.is_constant()) return static_cast<std::int64_t>(std::floor(static_cast<double>(extent.constant()) * scale));
  for (std::int64_t q = 1; q <= 64; ++q) {
    const double p = std::round(scale * static_cast<double>(q));
    if (p >= 1 && std::fabs(p / static_cast<double>(q) - scale) <= 1e-7 * scale)
      return floor_div(extent * Dim(static_cast<std::int64_t>(p)), q);
  }
  fail(ErrorCode::unsupported, "an extent of {} cannot be scaled by {} before it is known", extent.to_string(), scale);
}

void refuse_rare(const ForeignNode& node) {
  if (node.integer("antialias", 0) != 0) fail(ErrorCode::unsupported, "antialias is not supported");
  if (node.has("axes")) fail(ErrorCode::unsupported, "axes are not supported");
  if (node.text("keep_aspect_ratio_policy", "stretch") != "stretch")
    fail(ErrorCode::unsupported, "keep_aspect_ratio_policy is not supported");
}

// The operand of that place, unless it is there with no elements.
Value* given(const ForeignNode& node, std::size_t i) {
  Value* value = node.input(i);
  return value && product(value->type.dims) == Dim(0) ? nullptr : value;
}

// Dimensions in front that stay as they are.
std::size_t kept_dims(const std::vector<Dim>& from, const std::vector<Dim>& to, const std::optional<Tensor>& scales) {
  std::size_t kept = 0;
  while (kept < from.size() && from[kept] == to[kept] && (!scales || scales->at(static_cast<std::int64_t>(kept)) == 1)) ++kept;
  return kept;
}

std::vector<Value*> add_resize(GraphBuilder& builder, Value* x, std::vector<Dim> to, const std::optional<Tensor>& scales,
                               NamedAttributes attributes) {
  const std::size_t kept = kept_dims(x->type.dims, to, scales);
  if (kept == to.size()) return {x};
  if (scales) {
    const std::vector<double> all = scales->to_doubles();
    attributes.emplace_back("scales", Tensor::of(DType::f32, {static_cast<std::int64_t>(to.size() - kept)}, std::span(all).subspan(kept)));
  }
  attributes.emplace_back("sizes", std::vector<Dim>(to.begin() + static_cast<std::ptrdiff_t>(kept), to.end()));
  return {builder.add("Resize", {x}, attributes)};
}

std::vector<Value*> import(const ForeignNode& node, GraphBuilder& builder) {
  refuse_rare(node);
  Value* x = node.required(0);
  const bool old = node.opset < 11 || node.op_type == "Upsample";
  Value *scales = given(node, old ? 1 : 2), *sizes = old ? nullptr : given(node, 3);
  const std::string coordinates = node.text("coordinate_transformation_mode", old ? "asymmetric" : "half_pixel");
  if (coordinates == "tf_crop_and_resize" || coordinates == "tf_half_pixel_for_nn")
    fail(ErrorCode::unsupported, "coordinates of '{}' are not supported", coordinates);
  const NamedAttributes attributes = {{"mode", node.text("mode", "nearest") == "bilinear" ? "linear" : node.text("mode", "nearest")},
                                      {"coordinates", coordinates},
                                      {"nearest", node.text("nearest_mode", old ? "floor" : "round_prefer_floor")},
                                      {"cubic_a", node.real("cubic_coeff_a", -0.75)},
                                      {"exclude_outside", node.integer("exclude_outside", 0) != 0}};
  if (sizes) {
    const DimContent to = builder.require_dims(sizes, "sizes");
    if (to.size() != x->type.dims.size()) fail(ErrorCode::invalid_model, "{} sizes for {}", to.size(), x->type.to_string());
    return add_resize(builder, x, to, std::nullopt, attributes);
  }
  if (!scales) fail(ErrorCode::invalid_model, "there are neither scales nor sizes");
  const auto known = builder.constant_of(scales);
  if (!known) fail(ErrorCode::unsupported, "the scales '{}' depend on data", scales->name());
  if (known->count() != x->type.rank()) fail(ErrorCode::invalid_model, "{} scales for {}", known->count(), x->type.to_string());
  std::vector<Dim> to;
  for (std::size_t d = 0; d < x->type.dims.size(); ++d) to.push_back(scaled(x->type.dims[d], known->at(static_cast<std::int64_t>(d))));
  return add_resize(builder, x, to, known, attributes);
}

}  // namespace

Problem resize::problem_of(const OpCall& call) {
  const Shape x = shape_of(call.operand(0)), y = shape_of(call.results.at(0));
  const Tensor& scales = call.attributes.get<Tensor>("scales");
  const std::size_t kept = x.size() - call.attributes.dims("sizes").size();
  Problem p{.dtype = call.operand(0).dtype, .outer = element_count({x.begin(), x.begin() + static_cast<std::ptrdiff_t>(kept)})};
  p.copies = call.attributes.text("mode") == "nearest";
  for (std::size_t d = kept; d < x.size(); ++d) {
    if (x[d] == 0 && y[d] != 0 && element_count(y) != 0) fail(ErrorCode::invalid_argument, "no rows cannot be resized to {}", y[d]);
    const std::optional<double> scale = scales.count() == 0 ? std::nullopt : std::optional(scales.at(static_cast<std::int64_t>(d - kept)));
    p.tables.push_back(table_of(call.attributes, x[d], x[d] == 0 ? 0 : y[d], scale));
  }
  return p;
}

const OpDef ops::Resize = {
    .name = "Resize",
    .doc =
        "Samples x at other extents of its last dimensions: row o of the result lies at o/scale, shifted as `coordinates` says, where "
        "scale is "
        "the ratio of the extents unless given; taken from the nearest row, or linearly or cubically from its neighbours.",
    .fields = {{"sizes", FieldKind::dims, std::vector<Dim>{}, {}, "the extents of the last dimensions of the result"},
               {"scales", FieldKind::tensor, Tensor(DType::f32, {0}), {}, "one for each of them; empty: the ratios"},
               {"mode", FieldKind::text, std::string("nearest"), {"nearest", "linear", "cubic"}, "how rows are mixed"},
               {"coordinates",
                FieldKind::text,
                std::string("half_pixel"),
                {"half_pixel", "half_pixel_symmetric", "pytorch_half_pixel", "align_corners", "asymmetric"},
                "ONNX's coordinate_transformation_mode"},
               {"nearest",
                FieldKind::text,
                std::string("round_prefer_floor"),
                {"round_prefer_floor", "round_prefer_ceil", "floor", "ceil"},
                "which row is nearest"},
               {"cubic_a", FieldKind::real, -0.75, {}, "the coefficient of cubic"},
               {"exclude_outside", FieldKind::boolean, false, {}, "cubic gives no weight to rows outside"}},
    .operands = {{"x"}},
    .min_operands = 1,
    .max_operands = 1,
    .infer = infer,
    .rule = rule,
    .evaluate = evaluate,
    .onnx = {{.op_type = "Resize", .since = 10, .import = import}, {.op_type = "Upsample", .since = 9, .import = import}},
};

}  // namespace tandem
