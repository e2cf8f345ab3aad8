// The position of the largest or smallest element along an axis.
#include "core/check.h"
#include "core/tensor.h"
#include "graph/builder.h"
#include "ops/along_axis.h"
#include "ops/ops.h"
#include "ops/shape_rules.h"

namespace tandem::ops {
namespace {

std::vector<Type> infer(const OpCall& call) {
  require_dtype(call, 0, is_number, "a number type");
  Type y{DType::i64, call.operand(0).dims};
  const int axis = axis_of(call);
  if (y.dims[static_cast<std::size_t>(axis)] == Dim(0)) fail(ErrorCode::invalid_model, "axis {} has no element to point at", axis);
  if (call.attributes.boolean("keepdims")) y.dims[static_cast<std::size_t>(axis)] = 1;
  else y.dims.erase(y.dims.begin() + axis);
  return {y};
}

ShardingRule rule(const OpCall& call) {
  using Role = ShardingRule::Role;
  const int axis = axis_of(call);
  ShardingRule rule{.operands = {{}}, .results = {{}}};
  for (int d = 0; d < call.operand(0).rank(); ++d) {
    const int factor = rule.add(call.operand(0).dims[static_cast<std::size_t>(d)], d == axis ? Role::whole : Role::parallel);
    rule.operands[0].push_back({factor});
    if (d != axis) rule.results[0].push_back({factor});
    else if (call.attributes.boolean("keepdims")) rule.results[0].emplace_back();
  }
  return rule;
}

// NaN counts as the extreme, as in numpy.
template <bool kMax, typename T>
bool beats(T candidate, T best, bool ties_win) {
  if (best != best) return candidate != candidate && ties_win;
  if (candidate != candidate) return true;
  return (kMax ? best < candidate : candidate < best) || (ties_win && candidate == best);
}

template <bool kMax>
std::vector<Tensor> evaluate(const OpCall& call, std::span<const Tensor> in) {
  const Tensor& x = in[0];
  Tensor y(DType::i64, shape_of(call.results.at(0)));
  const bool last = call.attributes.boolean("last"), floats = is_float(x.dtype());
  const AxisView view(x.shape(), axis_of(call));
  for (std::int64_t line = 0; line < view.outer * view.inner; ++line) {
    const std::int64_t base = line / view.inner * view.extent * view.inner + line % view.inner;
    std::int64_t best = 0;
    for (std::int64_t j = 1; j < view.extent; ++j) {
      const std::int64_t at = base + j * view.inner, at_best = base + best * view.inner;
      if (floats ? beats<kMax>(x.at(at), x.at(at_best), last) : beats<kMax>(x.int_at(at), x.int_at(at_best), last)) best = j;
    }
    y.mutable_as<std::int64_t>()[line] = best;
  }
  return {y};
}

std::vector<Value*> import(const ForeignNode& node, GraphBuilder& builder) {
  Value* x = node.required(0);
  return {builder.add(node.op_type, {x},
                      {{"axis", std::int64_t{normalize_axis(node.integer("axis", 0), x->type.rank())}},
                       {"keepdims", node.integer("keepdims", 1) != 0},
                       {"last", node.integer("select_last_index", 0) != 0}})};
}

template <bool kMax>
OpDef define(std::string_view name, std::string_view doc) {
  return {
      .name = name,
      .doc = doc,
      .fields = {{"axis", FieldKind::integer, std::int64_t{0}, {}, "the dimension searched"},
                 {"keepdims", FieldKind::boolean, true, {}, "whether that dimension stays with extent 1"},
                 {"last", FieldKind::boolean, false, {}, "whether the last of equal elements counts, not the first"}},
      .operands = {{"x"}},
      .min_operands = 1,
      .max_operands = 1,
      .infer = infer,
      .rule = rule,
      .evaluate = evaluate<kMax>,
      .onnx = {{name, 1, import}},
  };
}

}  // namespace

const OpDef ArgMax = define<true>("ArgMax", "The index (i64) of the largest element along `axis`.");
const OpDef ArgMin = define<false>("ArgMin", "The index (i64) of the smallest element along `axis`.");

}  // namespace tandem::ops
