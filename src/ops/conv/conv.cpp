// Conv. How many groups there are follows from the channels of x and of the weight, so that a rank with some of the groups needs no other
// attributes.
#include "core/tensor.h"
#include "graph/graph.h"
#include "ops/conv/conv_transpose.h"
#include "ops/conv/problem.h"
#include "ops/ops.h"
#include "ops/pointwise/define.h"
#include "ops/pointwise/scalar.h"

namespace tandem {
namespace {

using namespace conv;

std::int64_t number(const Dim& extent, std::string_view what) {
  if (!extent.is_constant()) fail(ErrorCode::unsupported, "the {} are {}, expected a number", what, extent.to_string());
  return extent.constant();
}

std::int64_t groups_of(const OpCall& call) {
  const Type &x = call.operand(kX), &w = call.operand(kWeight);
  const std::int64_t channels = number(x.dims.at(1), "channels of x"), each = number(w.dims.at(1), "channels of the weight");
  const std::int64_t groups = each == 0 ? 1 : channels / each;
  if (groups * each != channels || (groups == 0 && channels == 0 && each != 0))
    fail(ErrorCode::invalid_model, "{} channels of x are no multiple of the weight's {}", channels, each);
  if (number(w.dims[0], "channels of the result") % groups != 0)
    fail(ErrorCode::invalid_model, "{} channels of the result do not divide into {} groups", w.dims[0].to_string(), groups);
  return groups;
}

// [m], or [m,1,…] as broadcasting would have it.
bool is_bias(const Type& type, const Type& result) {
  if (type.rank() != 1 && type.rank() != result.rank() - 1) return false;
  return type.dims[0] == result.dims[1] && product(type.dims) == result.dims[1];
}

std::vector<Type> infer(const OpCall& given) {
  const OpCall call = channels_first(given);
  const DType dtype = same_dtype(call);
  require_dtype(call, kX, is_float, "a float type");
  const Type& x = require_rank(call, kX, 3, 2 + window::kMaxSpatial);
  const Type& w = require_rank(call, kWeight, x.rank(), x.rank());
  groups_of(call);
  Type y{dtype, {x.dims[0], w.dims[0]}};
  const std::vector<Dim> spatial = window::result_extents(call, kernel_of(call), false);
  y.dims.insert(y.dims.end(), spatial.begin(), spatial.end());
  if (call.has_operand(kBias) && !is_bias(call.operand(kBias), y))
    fail(ErrorCode::invalid_model, "the bias is {}, expected {} channels", call.operand(kBias).to_string(), y.dims[1].to_string());
  if (call.has_operand(kResidual)) {
    const Type& residual = require_rank(call, kResidual, y.rank(), y.rank());
    for (std::size_t i = 0; i < y.dims.size(); ++i) merge_equal(residual.dims[i], y.dims[i], "residual and result");
  }
  if (window::is_channels_last(given.attributes)) y.dims = window::channels_last(y.dims);
  return {y};
}

// n (g c) s…, (g m) c k… -> n (g m) o…. What is added to a sum must be added once, so then c is not split.
ShardingRule rule(const OpCall& given) {
  using Role = ShardingRule::Role;
  const OpCall call = channels_first(given);
  const Type &x = call.operand(kX), &w = call.operand(kWeight), &y = call.results.at(0);
  const std::int64_t groups = groups_of(call);
  const bool pure = !call.has_operand(kBias) && !call.has_operand(kResidual) && call.attributes.text("activation") == "none";
  ShardingRule rule;
  const int n = rule.add(x.dims[0]);
  ShardingRule::DimFactors in, out, each;
  if (groups > 1) in = out = {rule.add(groups)};
  if (w.dims[1] != Dim(1)) each = {rule.add(w.dims[1], pure ? Role::contract : Role::whole)};
  in.insert(in.end(), each.begin(), each.end());
  out.push_back(rule.add(floor_div(w.dims[0], groups)));
  std::vector<ShardingRule::DimFactors> of_x = {{n}, in}, of_w = {out, each}, of_y = {{n}, out};
  for (std::size_t i = 2; i < x.dims.size(); ++i) {
    of_x.push_back({rule.add(x.dims[i], Role::whole)});
    of_w.push_back({rule.add(w.dims[i], Role::whole)});
    of_y.push_back({rule.add(y.dims[i], Role::whole)});
  }
  if (window::is_channels_last(given.attributes))
    for (auto* dims : {&of_x, &of_w, &of_y}) *dims = window::channels_last(*dims);
  rule.operands = {of_x, of_w};
  if (call.operands.size() > kBias) {
    rule.operands.emplace_back();
    if (call.has_operand(kBias)) rule.operands[kBias].resize(call.operand(kBias).dims.size()), rule.operands[kBias][0] = out;
  }
  if (call.operands.size() > kResidual)
    rule.operands.push_back(call.has_operand(kResidual) ? of_y : std::vector<ShardingRule::DimFactors>{});
  rule.results = {of_y};
  rule.linear = {pure, pure, false, false};
  return rule;
}

// One element of the result: Σ over the channels of a group and the taps inside.
struct Sum {
  const Problem& p;
  const std::vector<double>&x, &w;

  double at(std::int64_t image, std::int64_t channel, const std::array<std::int64_t, 3>& o) const {
    const auto& [a, b, c] = p.axes;
    const auto ta = a.taps(o[0]), tb = b.taps(o[1]), tc = c.taps(o[2]);
    double sum = 0;
    for (std::int64_t i = 0; i < p.group_in; ++i) {
      const std::int64_t from = (image * p.groups * p.group_in + channel / p.group_out * p.group_in + i) * p.in_count();
      const std::int64_t tap = (channel * p.group_in + i) * p.taps();
      for (std::int64_t u = ta.first; u < ta.last; ++u)
        for (std::int64_t v = tb.first; v < tb.last; ++v)
          for (std::int64_t t = tc.first; t < tc.last; ++t)
            sum += x[static_cast<std::size_t>(from + (a.row(o[0], u) * b.in + b.row(o[1], v)) * c.in + c.row(o[2], t))] *
                   w[static_cast<std::size_t>(tap + (u * b.kernel + v) * c.kernel + t)];
    }
    return sum;
  }
};

std::vector<Tensor> evaluate(const OpCall& call, std::span<const Tensor> in) {
  if (window::is_channels_last(call.attributes)) {
    std::vector<Tensor> first(in.begin(), in.end());
    for (const std::size_t i : {kX, kWeight, kResidual})
      if (call.has_operand(i)) first[i] = window::channels_first(in[i]);
    return {window::channels_last(evaluate(channels_first(call), first).at(0))};
  }
  const Problem p = problem_of(call);
  const std::vector<double> x = in[kX].to_doubles(), w = in[kWeight].to_doubles();
  const Sum sum{p, x, w};
  const auto activate = scalar::activation(call.attributes.text("activation"));
  Tensor y(p.dtype, shape_of(call.results.at(0)));
  std::byte* data = y.mutable_data();
  const std::int64_t channels = p.groups * p.group_out;
  for (std::int64_t i = 0; i < y.count(); ++i) {
    const std::int64_t o = i % p.out_count(), channel = i / p.out_count() % channels;
    double value = sum.at(i / p.out_count() / channels, channel,
                          {o / p.axes[2].out / p.axes[1].out, o / p.axes[2].out % p.axes[1].out, o % p.axes[2].out});
    if (call.has_operand(kBias)) value += in[kBias].at(channel);
    if (call.has_operand(kResidual)) value += in[kResidual].at(i);
    store_element(p.dtype, data, i, activate(value));
  }
  return {y};
}

std::vector<Value*> import(const ForeignNode& node, GraphBuilder& builder) {
  Value *x = node.required(kX), *w = node.required(kWeight), *bias = node.input(kBias);
  if (w->type.rank() != x->type.rank() || x->type.rank() < 3)
    fail(ErrorCode::invalid_model, "x is {} and the weight {}, expected the same rank of 3 or more", x->type.to_string(),
         w->type.to_string());
  std::vector<std::int64_t> kernel;
  for (std::size_t i = 2; i < w->type.dims.size(); ++i) kernel.push_back(number(w->type.dims[i], "extents of the window"));
  if (node.integers("kernel_shape", kernel) != kernel)
    fail(ErrorCode::invalid_model, "kernel_shape is {}, the weight {}", node.integers("kernel_shape", kernel), w->type.to_string());
  const Dim channels = w->type.dims[1] * Dim(node.integer("group", 1));
  if (x->type.dims[1] != channels)
    fail(ErrorCode::invalid_model, "x has {} channels, {} groups of the weight's {} need {}", x->type.dims[1].to_string(),
         node.integer("group", 1), w->type.dims[1].to_string(), channels.to_string());
  Value* y = builder.add("Conv", {x, w}, window::import(node, x->type, kernel));
  if (!bias) return {y};
  std::vector<Dim> dims(w->type.dims.size() - 1, Dim(1));
  dims[0] = w->type.dims[0];
  return {pointwise::add_broadcast(builder, "Add", y, builder.add("Reshape", {bias}, {{"shape", dims}}))};
}

std::vector<Field> fields() {
  std::vector<Field> all = window::fields();
  all.push_back(window::layout_field());
  all.push_back({"activation",
                 FieldKind::text,
                 std::string("none"),
                 {"none", "gelu", "gelu_tanh", "silu", "relu", "tanh", "sigmoid"},
                 "applied last"});
  return all;
}

}  // namespace

OpCall conv::channels_first(const OpCall& call) { return window::channels_first(call, {kX, kWeight, kResidual}); }

std::vector<std::int64_t> conv::kernel_of(const OpCall& call) {
  std::vector<std::int64_t> kernel;
  const std::size_t first = window::is_channels_last(call.attributes) ? 1 : 2;
  const Type& w = call.operand(kWeight);
  for (std::size_t i = 2; i < w.dims.size(); ++i) kernel.push_back(number(w.dims[i - 2 + first], "extents of the window"));
  return kernel;
}

Problem conv::problem_of(const OpCall& given) {
  const OpCall call = channels_first(given);
  const Type& w = call.operand(kWeight);
  Problem p{.dtype = call.results.at(0).dtype,
            .channels_last = window::is_channels_last(given.attributes),
            .batch = call.operand(kX).dims[0].constant(),
            .groups = groups_of(call),
            .group_in = w.dims[1].constant()};
  p.group_out = w.dims[0].constant() / p.groups;
  p.axes = window::axes_of(call, kernel_of(call));
  return p;
}

const OpDef ops::Conv = {
    .name = "Conv",
    .doc =
        "y[n,m,o…] = activation(Σ over channels c of m's group and taps k… of x[n,c,o·stride + k·dilation − pad…]·w[m,c,k…] + bias[m] + "
        "residual[n,m,o…]); there are as many groups as w's channels go into x's. With layout channels_last it is x[n,…,c], w[m,k…,c] and "
        "y[n,o…,m].",
    .fields = fields(),
    .operands = {{"x", "[n,c,spatial…]"}, {"w", "[m,c/groups,taps…]"}, {"bias", "[m] or [m,1,…]"}, {"residual", "the result's shape"}},
    .min_operands = 2,
    .max_operands = 4,
    .infer = infer,
    .rule = rule,
    .evaluate = evaluate,
    .onnx = {{.op_type = "Conv", .since = 1, .import = import}, {.op_type = "ConvTranspose", .since = 1, .import = import_transpose}},
};

}  // namespace tandem
