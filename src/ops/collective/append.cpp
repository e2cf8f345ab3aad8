// Appending to a sequence that lies in blocks over the ranks.
#include "core/check.h"
#include "ops/ops.h"
#include "ops/shape_rules.h"

namespace tandem::ops {
namespace {

std::vector<Type> infer(const OpCall& call) {
  const Type &past = call.operand(0), &fresh = call.operand(1);
  same_dtype(call);
  const int dim = normalize_axis(call.attributes.integer("dim"), past.rank());
  if (fresh.rank() != past.rank()) fail(ErrorCode::invalid_model, "operand 1 is {}, expected rank {}", fresh.to_string(), past.rank());
  const std::int64_t ranks = call.attributes.integer("num_ranks");
  if (ranks < 1) fail(ErrorCode::invalid_model, "num_ranks is {}", ranks);
  const Dim& extent = call.attributes.dim("extent");
  const auto at = static_cast<std::size_t>(dim);
  if (!may_be_equal(past.dims[at], ceil_div(extent, ranks)))
    fail(ErrorCode::invalid_model, "{} rows of the past are no block of {} over {} ranks", past.dims[at].to_string(), extent.to_string(),
         ranks);
  Type y = past;
  for (std::size_t d = 0; d < y.dims.size(); ++d)
    if (d != at) y.dims[d] = merge_equal(past.dims[d], fresh.dims[d], fmt::format("dimension {} of the operands", d));
  y.dims[at] = ceil_div(extent + fresh.dims[at], ranks);
  return {y};
}

}  // namespace

const OpDef Append = {
    .name = "Append",
    .doc =
        "Concat(past, new) along `dim`, where rank r holds block r of ⌈extent/N⌉ rows of `past`, all ranks hold `new`, and rank r gets "
        "block r of ⌈(extent + rows of new)/N⌉ rows; rows past the end are zeros.",
    .fields = {{"axis", FieldKind::text, std::string(), {}, "mesh axis whose groups take part; empty: all ranks"},
               {"num_ranks", FieldKind::integer, std::int64_t{1}, {}, "ranks in a group"},
               {"dim", FieldKind::integer, std::int64_t{0}, {}, "dimension that grows"},
               {"extent", FieldKind::dim, Dim(0), {}, "rows of the past on all ranks together"}},
    .operands = {{"past"}, {"new"}},
    .min_operands = 2,
    .max_operands = 2,
    .infer = infer,
    .collective = true,
};

}  // namespace tandem::ops
