// This rank's rows of a value that is the same on all ranks.
#include <algorithm>
#include <cstring>

#include "core/check.h"
#include "core/tensor.h"
#include "ops/ops.h"
#include "ops/shape_rules.h"

namespace tandem::ops {
namespace {

int dim_of(const OpCall& call) { return normalize_axis(call.attributes.integer("dim"), call.operand(0).rank()); }

std::vector<Type> infer(const OpCall& call) {
  Type y = call.operand(0);
  const Dim& length = call.attributes.dim("length");
  if (length.bounds({}).max < 0) fail(ErrorCode::invalid_model, "length {} is negative", length.to_string());
  y.dims[static_cast<std::size_t>(dim_of(call))] = length;
  return {y};
}

std::vector<Tensor> evaluate(const OpCall& call, std::span<const Tensor> in) {
  const Tensor& x = in[0];
  Tensor y(x.dtype(), shape_of(call.results.at(0)));
  const AxisView from(x.shape(), dim_of(call)), to(y.shape(), dim_of(call));
  const std::int64_t begin = call.attributes.dim("begin").constant();
  if (begin < 0) fail(ErrorCode::invalid_argument, "rows begin at {}", begin);
  const std::int64_t rows = std::clamp<std::int64_t>(from.extent - begin, 0, to.extent);
  const std::size_t row_bytes = bytes(x.dtype(), from.inner), copied = static_cast<std::size_t>(rows) * row_bytes;
  for (std::int64_t o = 0; o < from.outer && copied != 0; ++o)
    std::memcpy(y.mutable_data() + static_cast<std::size_t>(o * to.extent) * row_bytes,
                x.data() + static_cast<std::size_t>(o * from.extent + begin) * row_bytes, copied);
  return {y};
}

}  // namespace

const OpDef ShardSlice = {
    .name = "ShardSlice",
    .doc = "Rows begin … begin+length of x along `dim`; rows past its end are zeros. `begin` may hold coordinates such as @tp.",
    .fields = {{"dim", FieldKind::integer, std::int64_t{0}, {}, "the dimension that is cut"},
               {"begin", FieldKind::dim, Dim(0), {}, "the first row"},
               {"length", FieldKind::dim, Dim(0), {}, "how many rows"}},
    .operands = {{"x"}},
    .min_operands = 1,
    .max_operands = 1,
    .infer = infer,
    .evaluate = evaluate,
};

}  // namespace tandem::ops
