#include <algorithm>

#include "core/check.h"
#include "ops/gather/index.h"
#include "ops/layout/strided.h"
#include "ops/ops.h"
#include "ops/shape_rules.h"

namespace tandem {
namespace {

std::int64_t tuple_length(const OpCall& call) {
  const Type &data = call.operand(0), &indices = call.operand(1);
  if (indices.rank() < 1 || !indices.dims.back().is_constant())
    fail(ErrorCode::invalid_model, "indices are {}, expected a known last extent", indices.to_string());
  const std::int64_t length = indices.dims.back().constant();
  if (length < 1 || length > data.rank())
    fail(ErrorCode::invalid_model, "indices {} do not fit data {}", indices.to_string(), data.to_string());
  return length;
}

std::vector<Type> infer(const OpCall& call) {
  const Type &data = call.operand(0), &indices = call.operand(1), &updates = call.operand(2);
  require_dtype(call, 1, is_index, "i32 or i64");
  std::vector<Dim> expected(indices.dims.begin(), indices.dims.end() - (indices.dims.empty() ? 0 : 1));
  expected.insert(expected.end(), data.dims.begin() + tuple_length(call), data.dims.end());
  const bool fits = updates.dims.size() == expected.size() && std::ranges::equal(updates.dims, expected, may_be_equal);
  if (!fits || updates.dtype != data.dtype)
    fail(ErrorCode::invalid_model, "updates are {}, expected {}", updates.to_string(), Type{data.dtype, expected}.to_string());
  return {data};
}

// Only dimensions that lie inside the written slices may be split.
ShardingRule rule(const OpCall& call) {
  ShardingRule rule = whole_rule(call);
  const auto length = static_cast<std::size_t>(tuple_length(call)), lead = call.operand(1).dims.size() - 1;
  for (std::size_t d = length; d < call.operand(0).dims.size(); ++d) {
    const int factor = rule.add(call.operand(0).dims[d]);
    rule.operands[0][d] = rule.operands[2][lead + d - length] = rule.results[0][d] = {factor};
  }
  for (std::size_t d = 0; d < length; ++d) rule.results[0][d] = rule.operands[0][d];
  return rule;
}

double combined(const std::string& reduction, double a, double b) {
  if (reduction == "add") return a + b;
  if (reduction == "mul") return a * b;
  return reduction == "max" ? std::max(a, b) : std::min(a, b);
}

std::vector<Tensor> evaluate(const OpCall& call, std::span<const Tensor> x) {
  const auto length = static_cast<std::size_t>(tuple_length(call));
  const Shape& shape = x[0].shape();
  const Shape strides = row_major_strides(shape);
  const std::string& reduction = call.attributes.text("reduction");
  const DType dtype = x[0].dtype();
  Tensor out(dtype, shape);
  std::byte* to = out.mutable_data();
  std::copy_n(x[0].data(), x[0].size_bytes(), to);
  std::int64_t inner = 1;
  for (std::size_t d = length; d < shape.size(); ++d) inner *= shape[d];
  const std::int64_t tuples = x[1].count() / static_cast<std::int64_t>(length);
  for (std::int64_t n = 0; n < tuples; ++n) {
    std::int64_t target = 0;
    for (std::size_t k = 0; k < length; ++k)
      target += checked_index(x[1].int_at(n * static_cast<std::int64_t>(length) + static_cast<std::int64_t>(k)), shape[k]) * strides[k];
    for (std::int64_t i = 0; i < inner; ++i) {
      const std::int64_t from = n * inner + i;
      if (reduction == "none") copy_element(dtype, x[2].data(), from, to, target + i);
      else store_element(dtype, to, target + i, combined(reduction, load_element(dtype, to, target + i), x[2].at(from)));
    }
  }
  return {out};
}

std::vector<Value*> import(const ForeignNode& node, GraphBuilder& b) {
  return {b.add("ScatterND", {node.required(0), node.required(1), node.required(2)}, {{"reduction", node.text("reduction", "none")}})};
}

}  // namespace

const OpDef ops::ScatterND = {
    .name = "ScatterND",
    .doc = "A copy of data with slices at index tuples replaced by, or combined with, those of updates; in order where tuples repeat.",
    .fields = {{.name = "reduction",
                .kind = FieldKind::text,
                .initial = std::string("none"),
                .words = {"none", "add", "mul", "max", "min"},
                .doc = "how updates meet data; none: they replace it"}},
    .operands = {{"data"}, {"indices", "i32 or i64"}, {"updates"}},
    .min_operands = 3,
    .max_operands = 3,
    .infer = infer,
    .rule = rule,
    .evaluate = evaluate,
    .onnx = {{.op_type = "ScatterND", .since = 11, .import = import}},
};

}  // namespace tandem
