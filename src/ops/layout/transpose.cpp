#include <numeric>

#include "core/check.h"
#include "ops/layout/strided.h"
#include "ops/ops.h"
#include "ops/shape_rules.h"

namespace tandem {
namespace {

std::vector<Type> infer(const OpCall& call) {
  const Type& from = call.operand(0);
  const auto& permutation = call.attributes.integers("permutation");
  std::vector<bool> seen(from.dims.size(), false);
  Type to{from.dtype, {}};
  for (std::int64_t p : permutation) {
    if (p < 0 || p >= from.rank() || seen[static_cast<std::size_t>(p)])
      fail(ErrorCode::invalid_model, "[{}] is no permutation of {} dimensions", fmt::join(permutation, ","), from.rank());
    seen[static_cast<std::size_t>(p)] = true;
    to.dims.push_back(from.dims[static_cast<std::size_t>(p)]);
  }
  if (to.rank() != from.rank())
    fail(ErrorCode::invalid_model, "[{}] is no permutation of {} dimensions", fmt::join(permutation, ","), from.rank());
  return {to};
}

ShardingRule rule(const OpCall& call) {
  ShardingRule rule;
  rule.operands.resize(1);
  rule.results.resize(1);
  for (const Dim& d : call.operand(0).dims) rule.operands[0].push_back({rule.add(d)});
  for (std::int64_t p : call.attributes.integers("permutation")) rule.results[0].push_back(rule.operands[0][static_cast<std::size_t>(p)]);
  return rule;
}

Shape permuted(const OpCall& call, const Shape& strides) {
  Shape out;
  for (std::int64_t p : call.attributes.integers("permutation")) out.push_back(strides.at(static_cast<std::size_t>(p)));
  return out;
}

std::vector<Tensor> evaluate(const OpCall& call, std::span<const Tensor> x) {
  return {take_strided(x[0], shape_of(call.results.at(0)), permuted(call, row_major_strides(x[0].shape())))};
}

std::optional<DimContent> fold(const OpCall& call, std::span<const std::optional<DimContent>> x) {
  const auto shape = content_shape(call.operand(0).dims);
  if (!x[0] || !shape) return std::nullopt;
  return take_strided(*x[0], call.results.at(0).dims, permuted(call, row_major_strides(*shape)));
}

std::vector<Value*> import(const ForeignNode& node, GraphBuilder& b) {
  Value* x = node.required(0);
  std::vector<std::int64_t> identity(x->type.dims.size());
  std::iota(identity.begin(), identity.end(), 0);
  const std::vector<std::int64_t> permutation = node.integers("perm", {identity.rbegin(), identity.rend()});
  if (permutation == identity) return {x};
  return {b.add("Transpose", {x}, {{"permutation", permutation}})};
}

}  // namespace

const OpDef ops::Transpose = {
    .name = "Transpose",
    .doc = "Reorders dimensions: dimension i of the result is dimension permutation[i] of the operand.",
    .fields = {{.name = "permutation",
                .kind = FieldKind::integers,
                .initial = std::vector<std::int64_t>{},
                .doc = "one number per dimension of the result"}},
    .operands = {{"x"}},
    .min_operands = 1,
    .max_operands = 1,
    .infer = infer,
    .rule = rule,
    .evaluate = evaluate,
    .fold = fold,
    .onnx = {{.op_type = "Transpose", .since = 1, .import = import}},
};

}  // namespace tandem
