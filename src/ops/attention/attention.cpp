// Scaled dot-product attention: definition, inference, sharding rule, and the plain evaluator of one device.
#include <cmath>

#include "core/check.h"
#include "core/tensor.h"
#include "ops/attention/import.h"
#include "ops/attention/operands.h"
#include "ops/ops.h"
#include "ops/pointwise/scalar.h"
#include "ops/shape_rules.h"

namespace tandem::ops {
namespace {

using namespace attention;

void check_equal_extent(const OpCall& call, std::size_t operand, int dim, const Dim& expected, std::string_view what) {
  const Dim& have = call.operand(operand).dims[static_cast<std::size_t>(dim)];
  if (!may_be_equal(have, expected))
    fail(ErrorCode::invalid_model, "operand {} is {}: dimension {} must be {} {}", operand, call.operand(operand).to_string(), dim, what,
         expected.to_string());
}

// The mask lies over [B, Hq, Sq, Skv]; under split = qkv its columns are those of the whole sequence.
void check_mask(const OpCall& call, const std::vector<Dim>& scores) {
  const Type& mask = require_rank(call, kMask, 0, 4);
  if (!is_float(mask.dtype) && mask.dtype != DType::boolean)
    fail(ErrorCode::invalid_model, "the mask is {}, expected bool or a float type", to_string(mask.dtype));
  const bool split = call.attributes.integer("num_ranks") > 1;
  for (std::size_t i = 0; i < mask.dims.size(); ++i) {
    const Dim& have = mask.dims[mask.dims.size() - 1 - i];
    if (have == Dim(1) || (split && i == 0)) continue;
    if (!may_be_equal(have, scores[3 - i]))
      fail(ErrorCode::invalid_model, "the mask {} does not broadcast to {}", mask.to_string(), to_string(scores));
  }
}

void check_lengths(const OpCall& call, std::size_t operand, const Dim& batch) {
  if (!call.has_operand(operand)) return;
  require_rank(call, operand, 1, 1);
  require_dtype(call, operand, is_index, "i32 or i64");
  check_equal_extent(call, operand, 0, batch, "the batch");
}

std::vector<Type> infer(const OpCall& call) {
  const Type &q = require_rank(call, kQ, 4, 4), &k = require_rank(call, kK, 4, 4), &v = require_rank(call, kV, 4, 4);
  require_dtype(call, kQ, is_float, "a float type");
  for (const std::size_t i : {kK, kV})
    if (call.operand(i).dtype != q.dtype)
      fail(ErrorCode::invalid_model, "operand {} is {}, expected {} like q", i, to_string(call.operand(i).dtype), to_string(q.dtype));
  check_equal_extent(call, kK, 0, q.dims[0], "the batch");
  check_equal_extent(call, kV, 0, q.dims[0], "the batch");
  check_equal_extent(call, kK, 3, q.dims[3], "the head size");
  check_equal_extent(call, kV, 1, k.dims[1], "the number of kv heads");
  check_equal_extent(call, kV, 2, k.dims[2], "the number of keys");
  if (!q.dims[1].exact_divide(k.dims[1]))
    fail(ErrorCode::invalid_model, "{} query heads are no multiple of {} kv heads", q.dims[1].to_string(), k.dims[1].to_string());
  if (call.has_operand(kMask)) check_mask(call, {q.dims[0], q.dims[1], q.dims[2], k.dims[2]});
  check_lengths(call, kQueryLengths, q.dims[0]);
  check_lengths(call, kKeyLengths, q.dims[0]);
  if (call.has_operand(kPast)) {
    require_rank(call, kPast, 0, 0);
    require_dtype(call, kPast, is_index, "i32 or i64");
  }
  if ((call.attributes.text("causal") == "offset") != call.has_operand(kPast))
    fail(ErrorCode::invalid_model, "causal='offset' and the operand `past` need each other");
  if (call.attributes.integer("num_ranks") < 1) fail(ErrorCode::invalid_model, "num_ranks is {}", call.attributes.integer("num_ranks"));
  return {{q.dtype, {q.dims[0], q.dims[1], q.dims[2], v.dims[3]}}};
}

// Query heads are the kv heads times their groups, so both split together. Skv stays whole: splitting it needs the op's
// own exchange.
ShardingRule rule(const OpCall& call) {
  using Role = ShardingRule::Role;
  using DimFactors = ShardingRule::DimFactors;
  const Type &q = call.operand(kQ), &k = call.operand(kK), &v = call.operand(kV);
  ShardingRule rule;
  const int batch = rule.add(q.dims[0]), rows = rule.add(q.dims[2]), columns = rule.add(k.dims[2], Role::whole);
  const int size = rule.add(q.dims[3], Role::whole), value_size = rule.add(v.dims[3], Role::whole);
  const Dim group = *q.dims[1].exact_divide(k.dims[1]);
  const DimFactors kv_heads = k.dims[1] == Dim(1) ? DimFactors{} : DimFactors{rule.add(k.dims[1])};
  DimFactors heads = kv_heads;
  if (group != Dim(1)) heads.push_back(rule.add(group));
  rule.operands = {{{batch}, heads, {rows}, {size}}, {{batch}, kv_heads, {columns}, {size}}, {{batch}, kv_heads, {columns}, {value_size}}};
  rule.operands.resize(call.operands.size());
  if (call.has_operand(kMask)) {
    const std::vector<DimFactors> scores = {{batch}, heads, {rows}, {columns}};
    const Type& mask = call.operand(kMask);
    for (std::size_t i = 0; i < mask.dims.size(); ++i)
      rule.operands[kMask].push_back(mask.dims[i] == Dim(1) ? DimFactors{} : scores[4 - mask.dims.size() + i]);
  }
  for (const std::size_t i : {kQueryLengths, kKeyLengths})
    if (call.has_operand(i)) rule.operands[i] = {{batch}};
  rule.results = {{{batch}, heads, {rows}, {value_size}}};
  return rule;
}

// The last column a row may attend to, by the causal rule.
std::int64_t last_column(const std::string& causal, std::int64_t row, std::int64_t rows, std::int64_t columns, std::int64_t past) {
  if (causal == "upper_left") return row;
  if (causal == "lower_right") return row + columns - rows;
  if (causal == "offset") return row + past;
  return columns - 1;
}

std::vector<Tensor> evaluate(const OpCall& call, std::span<const Tensor> in) {
  check(call.attributes.integer("num_ranks") == 1, "the evaluator of Attention is for one device");
  const Tensor &q = in[kQ], &k = in[kK], &v = in[kV];
  const std::int64_t heads = q.shape()[1], rows = q.shape()[2], size = q.shape()[3], kv_heads = k.shape()[1], columns = k.shape()[2];
  const std::int64_t value_size = v.shape()[3];
  const double scale = call.attributes.real("scale"), softcap = call.attributes.real("softcap");
  const std::string& causal = call.attributes.text("causal");
  const std::int64_t past = call.has_operand(kPast) ? in[kPast].int_at(0) : 0;
  const double empty = call.attributes.text("empty_rows") == "nan" ? NAN : 0;
  const bool masked = call.has_operand(kMask), additive = masked && is_float(in[kMask].dtype());
  const Shape mask_steps = masked ? strides_over(in[kMask].shape(), {q.shape()[0], heads, rows, columns}) : Shape(4, 0);
  const auto length = [&](std::size_t operand, std::int64_t b, std::int64_t all) {
    return call.has_operand(operand) ? std::min(all, in[operand].int_at(b)) : all;
  };
  Tensor out(q.dtype(), {q.shape()[0], heads, rows, value_size});
  std::vector<double> scores(static_cast<std::size_t>(columns)), sums(static_cast<std::size_t>(value_size));
  for (std::int64_t line = 0; line < q.shape()[0] * heads * rows; ++line) {
    const std::int64_t b = line / (heads * rows), h = line / rows % heads, i = line % rows;
    if (i >= length(kQueryLengths, b, rows)) continue;  // stays zero
    const std::int64_t kv = (b * kv_heads + h / (heads / kv_heads)) * columns;
    const std::int64_t end = std::min(length(kKeyLengths, b, columns), last_column(causal, i, rows, columns, past) + 1);
    double top = -INFINITY;
    for (std::int64_t j = 0; j < end; ++j) {
      double s = 0;
      for (std::int64_t d = 0; d < size; ++d) s += q.at(line * size + d) * k.at((kv + j) * size + d);
      s *= scale;
      if (softcap > 0) s = softcap * std::tanh(s / softcap);
      const std::int64_t at = b * mask_steps[0] + h * mask_steps[1] + i * mask_steps[2] + j * mask_steps[3];
      if (additive) s += in[kMask].at(at);
      else if (masked && in[kMask].int_at(at) == 0) s = -INFINITY;
      scores[static_cast<std::size_t>(j)] = s;
      top = scalar::larger(s, top);
    }
    double total = 0;
    std::fill(sums.begin(), sums.end(), 0);
    for (std::int64_t j = 0; j < end && top != -INFINITY; ++j) {
      const double weight = std::exp(scores[static_cast<std::size_t>(j)] - top);
      total += weight;
      // A weight of zero attends to nothing, whatever lies there: padding may hold NaN.
      for (std::int64_t d = 0; d < value_size && weight != 0; ++d)
        sums[static_cast<std::size_t>(d)] += weight * v.at((kv + j) * value_size + d);
    }
    for (std::int64_t d = 0; d < value_size; ++d)
      store_element(out.dtype(), out.mutable_data(), line * value_size + d,
                    top == -INFINITY ? empty : sums[static_cast<std::size_t>(d)] / total);
  }
  return {out};
}

}  // namespace

const OpDef Attention = {
    .name = "Attention",
    .doc =
        "softmax(scale·q·kᵀ, capped and masked)·v per head, for q [B,Hq,Sq,D], k [B,Hkv,Skv,D], v [B,Hkv,Skv,Dv], Hq a multiple of Hkv; "
        "further operands: mask, query lengths, key lengths, past.",
    .fields = attention::fields(),
    .operands = attention::operands(),
    .min_operands = 3,
    .max_operands = 7,
    .infer = infer,
    .rule = rule,
    .evaluate = evaluate,
    .onnx = {{"Attention", 1, import_attention}},
};

}  // namespace tandem::ops
