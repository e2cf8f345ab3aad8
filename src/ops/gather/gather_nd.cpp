#include "core/check.h"
#include "ops/gather/index.h"
#include "ops/layout/strided.h"
#include "ops/ops.h"
#include "ops/shape_rules.h"

namespace tandem {
namespace {

// How many leading dimensions of data (after the batch) one index tuple names.
std::int64_t tuple_length(const OpCall& call) {
  const Type &data = call.operand(0), &indices = call.operand(1);
  const std::int64_t batch = call.attributes.integer("batch_dims");
  if (indices.rank() < 1 || !indices.dims.back().is_constant())
    fail(ErrorCode::invalid_model, "indices are {}, expected a known last extent", indices.to_string());
  const std::int64_t length = indices.dims.back().constant();
  if (batch < 0 || batch >= indices.rank() || batch > data.rank() || length < 1 || batch + length > data.rank())
    fail(ErrorCode::invalid_model, "indices {} with {} batch dimensions do not fit data {}", indices.to_string(), batch, data.to_string());
  return length;
}

std::vector<Type> infer(const OpCall& call) {
  const Type &data = call.operand(0), &indices = call.operand(1);
  require_dtype(call, 1, is_index, "i32 or i64");
  const std::int64_t skipped = call.attributes.integer("batch_dims") + tuple_length(call);
  Type to{data.dtype, {indices.dims.begin(), indices.dims.end() - 1}};
  for (std::int64_t d = 0; d < call.attributes.integer("batch_dims"); ++d)
    merge_equal(data.dims[static_cast<std::size_t>(d)], indices.dims[static_cast<std::size_t>(d)], "batch extents");
  to.dims.insert(to.dims.end(), data.dims.begin() + skipped, data.dims.end());
  return {to};
}

ShardingRule rule(const OpCall& call) {
  ShardingRule rule;
  using Role = ShardingRule::Role;
  const Type &data = call.operand(0), &indices = call.operand(1);
  const std::int64_t batch = call.attributes.integer("batch_dims"), gathered = batch + tuple_length(call);
  rule.operands.resize(2);
  rule.results.resize(1);
  for (int d = 0; d < indices.rank(); ++d) {
    const bool last = d + 1 == indices.rank();
    const int factor = rule.add(indices.dims[static_cast<std::size_t>(d)], last ? Role::whole : Role::parallel);
    rule.operands[1].push_back({factor});
    if (!last) rule.results[0].push_back({factor});
  }
  for (int d = 0; d < data.rank(); ++d) {
    if (d < batch) {
      rule.operands[0].push_back(rule.operands[1][static_cast<std::size_t>(d)]);
      continue;
    }
    const int factor = rule.add(data.dims[static_cast<std::size_t>(d)], d < gathered ? Role::whole : Role::parallel);
    rule.operands[0].push_back({factor});
    if (d >= gathered) rule.results[0].push_back({factor});
  }
  return rule;
}

std::vector<Tensor> evaluate(const OpCall& call, std::span<const Tensor> x) {
  const auto batch = static_cast<std::size_t>(call.attributes.integer("batch_dims")), length = static_cast<std::size_t>(tuple_length(call));
  const Shape &from = x[0].shape(), &indices = x[1].shape();
  const Shape strides = row_major_strides(from);
  std::int64_t batches = 1, tuples = 1, inner = 1, block = 1;
  for (std::size_t d = 0; d < batch; ++d) batches *= indices[d];
  for (std::size_t d = batch; d + 1 < indices.size(); ++d) tuples *= indices[d];
  for (std::size_t d = batch + length; d < from.size(); ++d) inner *= from[d];
  for (std::size_t d = batch; d < from.size(); ++d) block *= from[d];
  Tensor out(x[0].dtype(), shape_of(call.results.at(0)));
  std::byte* to = out.mutable_data();
  for (std::int64_t n = 0; n < batches * tuples; ++n) {
    std::int64_t source = n / tuples * block;
    for (std::size_t k = 0; k < length; ++k)
      source += checked_index(x[1].int_at(n * static_cast<std::int64_t>(length) + static_cast<std::int64_t>(k)), from[batch + k]) *
                strides[batch + k];
    for (std::int64_t i = 0; i < inner; ++i) copy_element(out.dtype(), x[0].data(), source + i, to, n * inner + i);
  }
  return {out};
}

std::vector<Value*> import(const ForeignNode& node, GraphBuilder& b) {
  Value *data = node.required(0), *indices = node.required(1);
  const std::int64_t batch = node.integer("batch_dims", 0);
  for (std::size_t d = 0; static_cast<std::int64_t>(d) < batch && d < data->type.dims.size() && d < indices->type.dims.size(); ++d)
    b.require_equal(data->type.dims[d], indices->type.dims[d]);
  return {b.add("GatherND", {data, indices}, {{"batch_dims", batch}})};
}

}  // namespace

const OpDef ops::GatherND = {
    .name = "GatherND",
    .doc = "Slices of data at index tuples: the last dimension of indices names a position in the leading dimensions after the batch.",
    .fields = {{.name = "batch_dims",
                .kind = FieldKind::integer,
                .initial = std::int64_t{0},
                .doc = "leading dimensions that data and indices share"}},
    .operands = {{"data"}, {"indices", "i32 or i64"}},
    .min_operands = 2,
    .max_operands = 2,
    .infer = infer,
    .rule = rule,
    .evaluate = evaluate,
    .onnx = {{.op_type = "GatherND", .since = 11, .import = import}},
};

}  // namespace tandem
