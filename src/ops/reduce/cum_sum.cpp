#include "core/check.h"
#include "core/tensor.h"
#include "graph/builder.h"
#include "ops/along_axis.h"
#include "ops/ops.h"
#include "ops/pointwise/scalar.h"
#include "ops/shape_rules.h"

namespace tandem::ops {
namespace {

std::vector<Type> infer(const OpCall& call) {
  require_dtype(call, 0, is_number, "a number type");
  axis_of(call);
  return {call.operand(0)};
}

ShardingRule rule(const OpCall& call) {
  ShardingRule rule = whole_along_axis(call);
  rule.linear = {true};
  return rule;
}

template <typename T>
void accumulate(const OpCall& call, const Tensor& x, Tensor& y) {
  const bool reverse = call.attributes.boolean("reverse"), exclusive = call.attributes.boolean("exclusive");
  const AxisView view(x.shape(), axis_of(call));
  for (std::int64_t line = 0; line < view.outer * view.inner; ++line) {
    const std::int64_t base = line / view.inner * view.extent * view.inner + line % view.inner;
    T sum = 0;
    for (std::int64_t j = 0; j < view.extent; ++j) {
      const std::int64_t i = base + (reverse ? view.extent - 1 - j : j) * view.inner;
      const T before = sum;
      if constexpr (std::is_same_v<T, double>) {
        sum += x.at(i);
        store_element(y.dtype(), y.mutable_data(), i, exclusive ? before : sum);
      } else {
        sum = scalar::plus(sum, x.int_at(i));
        store_int(y.dtype(), y.mutable_data(), i, exclusive ? before : sum);
      }
    }
  }
}

std::vector<Tensor> evaluate(const OpCall& call, std::span<const Tensor> in) {
  Tensor y(in[0].dtype(), in[0].shape());
  if (is_float(y.dtype())) accumulate<double>(call, in[0], y);
  else accumulate<std::int64_t>(call, in[0], y);
  return {y};
}

std::vector<Value*> import(const ForeignNode& node, GraphBuilder& builder) {
  Value* x = node.required(0);
  const auto axis = builder.require_ints(node.required(1), "axis");
  if (axis.size() != 1) fail(ErrorCode::invalid_model, "axis holds {} numbers, expected one", axis.size());
  return {builder.add("CumSum", {x},
                      {{"axis", std::int64_t{normalize_axis(axis[0], x->type.rank())}},
                       {"exclusive", node.integer("exclusive", 0) != 0},
                       {"reverse", node.integer("reverse", 0) != 0}})};
}

}  // namespace

const OpDef CumSum = {
    .name = "CumSum",
    .doc = "y[i] = the sum of x[0 … i] along `axis`; exclusive: of x[0 … i−1]; reverse: from the end.",
    .fields = {{"axis", FieldKind::integer, std::int64_t{0}, {}, "the dimension summed along"},
               {"exclusive", FieldKind::boolean, false, {}, "whether x[i] itself is left out"},
               {"reverse", FieldKind::boolean, false, {}, "whether it sums from the end"}},
    .operands = {{"x"}},
    .min_operands = 1,
    .max_operands = 1,
    .infer = infer,
    .rule = rule,
    .evaluate = evaluate,
    .onnx = {{"CumSum", 11, import}},
};

}  // namespace tandem::ops
