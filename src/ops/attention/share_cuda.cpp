#include "ops/attention/share_cuda.h"

#include <algorithm>

#include "core/tensor.h"
#include "ops/shape_rules.h"

namespace tandem::attention {
namespace {

constexpr std::size_t kHeads = 1, kRows = 2, kColumns = 3;

// What is causal about the share, and which of its columns any row may attend to.
void cut_causal(const Spread& spread, const Segment& rows, Segment& columns, OpCall& call, AttentionProblem& p) {
  const std::string causal = call.attributes.text("causal");
  if (causal == "none") return;
  const std::int64_t base = causal == "lower_right" ? spread.columns.extent - spread.rows.extent : 0;
  const std::int64_t diagonal = base + rows.position - columns.position;
  if (causal == "offset") {
    p.diagonal = diagonal;
    return;
  }
  const std::int64_t all = columns.count;
  columns.count = std::clamp<std::int64_t>(diagonal + rows.count, 0, all);
  if (diagonal >= all - 1) {
    call.attributes.set("causal", std::string("none"));
  } else {
    call.attributes.set("causal", std::string("lower_right"));
    if (columns.count != diagonal + rows.count) p.diagonal = diagonal;
  }
}

}  // namespace

MaskShape::MaskShape(const Spread& spread) : present(spread.call.has_operand(kMask)) {
  if (!present) return;
  const Shape given = shape_of(spread.call.operand(kMask));
  dims = Shape(4 - given.size(), 1);
  dims.insert(dims.end(), given.begin(), given.end());
  // One row where a rank holds one: whether that is all of them or its own cannot be seen, and gathering suits both.
  per_row = dims[kRows] == spread.rows.local;
  per_head = dims[kHeads] != 1;
}

void place_mask(AttentionProblem& problem, const Shape& dims) {
  const Shape strides = row_major_strides(dims);
  const auto step = [&](std::size_t i) { return dims[i] == 1 ? 0 : strides[i]; };
  problem.mask_steps = {step(0), step(kHeads), step(kRows)};
  problem.mask_column_step = step(kColumns);
}

Gives given_to_merge(const PrepareArgs& args, const Spread& spread) {
  const OpCall& call = spread.call;
  if (args.exact) return Gives::sums;
  for (std::size_t i = kMask; i < call.operands.size(); ++i)
    if (call.has_operand(i)) return Gives::sums;
  const bool many_rows = spread.rows.local >= 64;
  return many_rows && spread.problem.dtype != DType::f32 && spread.problem.softcap == 0 ? Gives::logarithms : Gives::sums;
}

OpCall share_of(const OpCall& call, std::int64_t heads, std::int64_t kv_heads, std::int64_t rows, std::int64_t columns) {
  OpCall share = call;
  share.attributes.set("num_ranks", std::int64_t{1});
  const auto set = [](Type& type, std::int64_t h, std::int64_t s) { type.dims[1] = h, type.dims[2] = s; };
  set(*share.operands[kQ], heads, rows);
  set(*share.operands[kK], kv_heads, columns);
  set(*share.operands[kV], kv_heads, columns);
  set(share.results[0], heads, rows);
  return share;
}

Share make_share(const PrepareArgs& args, const Spread& spread, AttentionProblem p, const Segment& rows, Segment columns, Gives gives) {
  OpCall call = spread.call;
  cut_causal(spread, rows, columns, call, p);
  p.rows = rows.count;
  p.columns = columns.count;
  p.first_row = rows.position;
  p.first_column = columns.position;
  call = share_of(call, p.heads, p.kv_heads, p.rows, p.columns);
  Share share{nullptr,
              bytes(p.dtype, rows.local * p.q_steps.row),
              bytes(p.dtype, columns.local * p.k_steps.row),
              bytes(p.dtype, columns.local * p.v_steps.row),
              bytes(p.dtype, rows.local * p.out_steps.row),
              0,
              rows.count > 0 && columns.count > 0};
  if (const MaskShape mask(spread); mask.present) {
    place_mask(p, mask.dims);
    share.mask_begin = bytes(p.mask_dtype, rows.local * p.mask_steps.row + columns.position * p.mask_column_step);
    Shape means = mask.dims;
    if (means[kHeads] != 1) means[kHeads] = p.heads;
    if (means[kRows] != 1) means[kRows] = p.rows;
    if (means[kColumns] != 1) means[kColumns] = p.columns;
    call.operands[kMask]->dims = {means.begin(), means.end()};
  }
  share.attention = prepare_attention(args, call, p, gives);
  return share;
}

HeadsFrom::HeadsFrom(const RunArgs& args, const Spread& spread, std::int64_t first)
    : operands(args.operands.begin(), args.operands.end()), results(args.results.begin(), args.results.end()) {
  const AttentionProblem& p = spread.problem;
  operands[kQ] += bytes(p.dtype, first * p.q_steps.head);
  results[0] += bytes(p.dtype, first * p.out_steps.head);
  const MaskShape mask(spread);
  if (mask.per_head) operands[kMask] += bytes(p.mask_dtype, first * row_major_strides(mask.dims)[kHeads]);
}

void Share::run(const RunArgs& args, const std::byte* k, const std::byte* v, std::span<std::byte* const> results,
                std::byte* workspace) const {
  std::vector<const std::byte*> operands(args.operands.begin(), args.operands.end());
  operands[kQ] += q_begin;
  operands[kK] = k + k_begin;
  operands[kV] = v + v_begin;
  if (operands.size() > kMask && operands[kMask]) operands[kMask] += mask_begin;
  std::vector<std::byte*> at(results.begin(), results.end());
  at[0] += out_begin;
  attention->run({operands, at, workspace, args.stream, args.deadline});
}

}  // namespace tandem::attention
