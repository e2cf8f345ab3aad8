// Attention over a split sequence: every rank trades its rows of all heads for all rows of its heads, computes those alone, and trades the
// results back. The work of causal attention is even by itself, for all heads cost the same.
#include "core/check.h"
#include "core/tensor.h"
#include "ops/attention/ranks_cpu.h"
#include "ops/shape_rules.h"

namespace tandem::kernels {
namespace {

using namespace attention;

constexpr int kHeads = 1, kSequence = 2;

// The mask over all rows of this rank's heads.
class HeadMask {
 public:
  explicit HeadMask(const Spread& spread) : spread_(spread) {
    if (!spread.call.has_operand(kMask)) return;
    const Shape dims = shape_of(spread.call.operand(kMask));
    dims_ = Shape(4 - dims.size(), 1);
    dims_.insert(dims_.end(), dims.begin(), dims.end());
    per_head_ = dims_[kHeads] != 1;
    // One row where a rank holds one: whether that is all of them or its own cannot be seen, and gathering suits both.
    per_row_ = dims_[kSequence] == spread.rows.local;
    Shape out = dims_;
    if (per_row_) out[kSequence] *= spread.ranks;
    if (per_row_ && per_head_) out[kHeads] /= spread.ranks;
    steps_ = strides_over(out, {spread.problem.batch, out[kHeads], out[kSequence], out[3]});
    for (std::size_t i = 0; i < 4; ++i)
      if (out[i] == 1) steps_[i] = 0;
    if (per_row_) bytes_ = aligned(bytes(spread.problem.mask_dtype, element_count(out)));
  }

  std::size_t workspace_bytes() const { return bytes_; }

  void describe(AttentionProblem& problem) const {
    if (dims_.empty()) return;
    problem.mask_steps = {steps_[0], steps_[1], steps_[2]};
    problem.mask_column_step = steps_[3];
  }

  const std::byte* exchange(const RunArgs& args, const std::byte* mask, std::byte* workspace) const {
    const DType dtype = spread_.problem.mask_dtype;
    if (!mask) return mask;
    if (!per_row_) return per_head_ ? mask + bytes(dtype, spread_.rank * (dims_[kHeads] / spread_.ranks) * steps_[1]) : mask;
    CollectiveCall call = {.kind = Collective::all_gather, .dtype = dtype, .dims = dims_, .axis = kSequence, .in = mask, .out = workspace};
    if (per_head_) {
      call.kind = Collective::all_to_all;
      call.split_axis = kHeads;
      call.concat_axis = kSequence;
    }
    spread_.run(call, args);
    return workspace;
  }

 private:
  const Spread& spread_;
  Shape dims_, steps_;  // 4 of them; none without a mask
  bool per_head_ = false, per_row_ = false;
  std::size_t bytes_ = 0;
};

class AttentionAllToAll final : public PreparedKernel {
 public:
  explicit AttentionAllToAll(const PrepareArgs& args)
      : spread_(args), mask_(spread_), problem_(spread_.problem), segments_(spread_.rows.all()) {
    AttentionProblem& p = problem_;
    for (std::size_t i = 0; i < 3; ++i) dims_[i] = shape_of(args.call.operand(i));
    dims_[3] = {p.batch, p.heads / spread_.ranks, spread_.rows.padded(), p.value_size};
    for (std::size_t i = 0; i < 4; ++i) at_[i + 1] = at_[i] + aligned(bytes(p.dtype, element_count(dims_[i])));
    p.heads /= spread_.ranks;
    p.kv_heads /= spread_.ranks;
    p.q_steps = dense_steps(p.heads, spread_.rows.padded(), p.size);
    p.k_steps = dense_steps(p.kv_heads, spread_.columns.padded(), p.size);
    p.v_steps = dense_steps(p.kv_heads, spread_.columns.padded(), p.value_size);
    p.out_steps = dense_steps(p.heads, spread_.rows.padded(), p.value_size);
    mask_.describe(p);
    at_mask_ = at_[4] + (spread_.columns.zigzag ? std::max(at_[2] - at_[1], at_[3] - at_[2]) : 0);
    at_rest_ = at_mask_ + mask_.workspace_bytes();
  }

  std::size_t workspace_bytes() const override { return at_rest_ + attention_workspace(problem_, spread_.threads); }

  void run(const RunArgs& args) const override {
    RunValues values = spread_.values(args);
    std::byte *q = args.workspace, *k = q + at_[1], *v = q + at_[2], *out = q + at_[3], *unordered = q + at_[4];
    trade(args, values.q, dims_[0], kHeads, kSequence, q);
    trade_keys(args, values.k, dims_[1], unordered, k);
    trade_keys(args, values.v, dims_[2], unordered, v);
    values.mask = mask_.exchange(args, values.mask, q + at_mask_);
    values.q = q;
    values.k = k;
    values.v = v;
    values.out = out;
    clear_padding(spread_.rows, out, bytes(problem_.dtype, element_count(dims_[3])));
    for (const Segment& rows : segments_) {
      const Piece piece(problem_, values, rows, {0, 0, spread_.columns.extent});
      run_attention(piece.problem, args.pool(), q + at_rest_);
    }
    trade(args, out, dims_[3], kSequence, kHeads, args.results[0]);
  }

 private:
  void trade(const RunArgs& args, const std::byte* from, const Shape& dims, int split, int concat, std::byte* to) const {
    spread_.run({.kind = Collective::all_to_all,
                 .dtype = problem_.dtype,
                 .dims = dims,
                 .split_axis = split,
                 .concat_axis = concat,
                 .in = from,
                 .out = to},
                args);
  }

  // Keys must also lie in order of position: a piece has all of them.
  void trade_keys(const RunArgs& args, const std::byte* from, const Shape& dims, std::byte* unordered, std::byte* to) const {
    const bool zigzag = spread_.columns.zigzag;
    trade(args, from, dims, kHeads, kSequence, zigzag ? unordered : to);
    if (zigzag)
      order_positions(spread_.columns, args.pool(), unordered, to, problem_.batch * problem_.kv_heads, bytes(problem_.dtype, dims[3]));
  }

  Spread spread_;
  HeadMask mask_;
  AttentionProblem problem_;  // of this rank's heads over whole sequences, rows in rank order
  std::vector<Segment> segments_;
  Shape dims_[4];                                       // before the exchange: q, k, v, out
  std::size_t at_[5] = {}, at_mask_ = 0, at_rest_ = 0;  // in the workspace
};

std::optional<std::string> refuse(const OpCall& call) {
  if (auto reason = ranks_refusal(call, "qkv", "all_to_all")) return reason;
  const std::int64_t ranks = call.attributes.integer("num_ranks");
  const Dim &heads = call.operand(kQ).dims[1], &kv_heads = call.operand(kK).dims[1];
  if (!kv_heads.exact_divide(ranks))
    return fmt::format("its {} query and {} kv heads do not divide by {} ranks", heads.to_string(), kv_heads.to_string(), ranks);
  return std::nullopt;
}

// q, k and v there, the result back; a mask with rows must come along.
Dim sent_bytes(const OpCall& call) {
  const Dim ranks = call.attributes.integer("num_ranks"), others = ranks - Dim(1);
  const Type& out = call.results.at(0);
  Dim traded = operand_bytes(call, kQ) + operand_bytes(call, kK) + operand_bytes(call, kV) + product(out.dims) * Dim(bits(out.dtype) / 8);
  Dim gathered = 0;
  if (call.has_operand(kMask)) {
    const std::vector<Dim>& mask = call.operand(kMask).dims;
    const auto is_one = [&](std::size_t from_end) { return mask.size() < from_end || mask[mask.size() - from_end] == Dim(1); };
    Dim& more = is_one(3) ? gathered : traded;
    if (!is_one(2)) more = more + operand_bytes(call, kMask);
  }
  return floor_div(traded * others, ranks) + gathered * others;
}

}  // namespace

extern const KernelDef attention_all_to_all;
const KernelDef attention_all_to_all = {
    .name = "attention_all_to_all",
    .op = "Attention",
    .refuse = refuse,
    .prepare = [](const PrepareArgs& args) -> std::unique_ptr<PreparedKernel> { return std::make_unique<AttentionAllToAll>(args); },
    .rank = 1,
    .sent_bytes = sent_bytes,
};

}  // namespace tandem::kernels
