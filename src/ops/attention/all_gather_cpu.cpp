// Attention over a split sequence: every rank gathers all keys and values and computes its own rows. Causal rows cost the more the later
// they are, so a second kernel lets ranks with late rows hand some to ranks with early ones.
#include <algorithm>
#include <cstring>

#include "core/tensor.h"
#include "ops/attention/ranks_cpu.h"
#include "ops/shape_rules.h"

namespace tandem::kernels {
namespace {

using namespace attention;

class AttentionAllGather : public PreparedKernel {
 public:
  explicit AttentionAllGather(const PrepareArgs& args)
      : spread_(args), problem_(spread_.problem), k_dims_(shape_of(args.call.operand(kK))), v_dims_(shape_of(args.call.operand(kV))) {
    problem_.k_steps = dense_steps(problem_.kv_heads, spread_.columns.padded(), problem_.size);
    problem_.v_steps = dense_steps(problem_.kv_heads, spread_.columns.padded(), problem_.value_size);
    const auto ranks = static_cast<std::size_t>(spread_.ranks);
    k_bytes_ = aligned(ranks * bytes(problem_.dtype, element_count(k_dims_)));
    v_bytes_ = aligned(ranks * bytes(problem_.dtype, element_count(v_dims_)));
    ordered_bytes_ = spread_.columns.zigzag ? std::max(k_bytes_, v_bytes_) : 0;
  }

  std::size_t workspace_bytes() const override { return gathered_bytes() + attention_workspace(problem_, spread_.threads); }

  void run(const RunArgs& args) const override {
    const RunValues values = gathered(args);
    for (const Segment& rows : spread_.rows.of(spread_.rank)) compute(args, problem_, values, rows, gathered_bytes());
  }

 protected:
  std::size_t gathered_bytes() const { return k_bytes_ + v_bytes_ + ordered_bytes_; }

  // All keys and values, at the beginning of the workspace; zeros where results are padding.
  RunValues gathered(const RunArgs& args) const {
    RunValues values = spread_.values(args);
    std::byte *k = args.workspace, *v = k + k_bytes_, *unordered = v + v_bytes_;
    gather(args, values.k, k_dims_, unordered, k);
    gather(args, values.v, v_dims_, unordered, v);
    values.k = k;
    values.v = v;
    clear_padding(spread_.rows, values.out,
                  bytes(problem_.dtype, spread_.rows.local * problem_.batch * problem_.heads * problem_.value_size));
    return values;
  }

  void compute(const RunArgs& args, const AttentionProblem& problem, const RunValues& values, const Segment& rows,
               std::size_t scratch) const {
    const Piece piece(problem, values, rows, {0, 0, spread_.columns.extent});
    run_attention(piece.problem, args.pool(), args.workspace + scratch);
  }

  Spread spread_;
  AttentionProblem problem_;

 private:
  // [B,H,local,size] of all ranks to [B,H,ranks·local,size] in order of position.
  void gather(const RunArgs& args, const std::byte* from, const Shape& dims, std::byte* unordered, std::byte* to) const {
    const bool zigzag = spread_.columns.zigzag;
    spread_.run(
        {.kind = Collective::all_gather, .dtype = problem_.dtype, .dims = dims, .axis = 2, .in = from, .out = zigzag ? unordered : to},
        args);
    if (zigzag) order_positions(spread_.columns, args.pool(), unordered, to, dims[0] * dims[1], bytes(problem_.dtype, dims[3]));
  }

  Shape k_dims_, v_dims_;
  std::size_t k_bytes_ = 0, v_bytes_ = 0, ordered_bytes_ = 0;
};

// Ranks r and N−1−r together have as much work as any other two: the later one hands its last rows to the earlier one, as many as make
// both equal, and gets their results.
class AttentionBalanced final : public AttentionAllGather {
 public:
  explicit AttentionBalanced(const PrepareArgs& args) : AttentionAllGather(args), peer_(spread_.ranks - 1 - spread_.rank) {
    const int early = std::min(peer_, spread_.rank), late = std::max(peer_, spread_.rank);
    late_rows_ = late == early ? Segment{0, 0, 0} : rows_of(late);
    const bool empty = problem_.batch * problem_.heads * problem_.size * problem_.value_size == 0;
    handed_ = empty ? 0 : handed_rows(rows_of(early), late_rows_);
    guests_ = problem_;
    guests_.rows = handed_;
    guests_.q_steps = dense_steps(problem_.heads, handed_, problem_.size);
    guests_.out_steps = dense_steps(problem_.heads, handed_, problem_.value_size);
    const std::int64_t lines = problem_.batch * problem_.heads * handed_;
    q_bytes_ = bytes(problem_.dtype, lines * problem_.size);
    out_bytes_ = bytes(problem_.dtype, lines * problem_.value_size);
  }

  std::size_t workspace_bytes() const override {
    return scratch() + std::max(attention_workspace(problem_, spread_.threads), attention_workspace(guests_, spread_.threads));
  }

  void run(const RunArgs& args) const override {
    const bool late = spread_.rank > peer_, trades = handed_ > 0;
    std::byte *q = args.workspace + gathered_bytes(), *out = q + aligned(q_bytes_);
    const std::int64_t first = late_rows_.count - handed_;  // of the rows handed over, in the late rank's block
    if (trades && late) {
      copy_rows(args.operands[kQ], spread_.rows.local, first, q, handed_, 0, problem_.size);
      spread_.group->send({q, q_bytes_}, peer_, args.deadline);
    }
    if (trades && !late) spread_.group->recv({q, q_bytes_}, peer_, args.deadline);
    RunValues values = gathered(args);
    Segment own = rows_of(spread_.rank);
    if (late) own.count -= handed_;
    if (own.count > 0) compute(args, problem_, values, own, scratch());
    if (!trades) return;
    if (late) {
      spread_.group->recv({out, out_bytes_}, peer_, args.deadline);
      copy_rows(out, handed_, 0, args.results[0], spread_.rows.local, first, problem_.value_size);
    } else {
      values.q = q;
      values.out = out;
      compute(args, guests_, values, {0, late_rows_.position + first, handed_}, scratch());
      spread_.group->send({out, out_bytes_}, peer_, args.deadline);
    }
  }

 private:
  std::size_t scratch() const { return gathered_bytes() + aligned(q_bytes_) + aligned(out_bytes_); }

  Segment rows_of(int rank) const {
    const std::vector<Segment> segments = spread_.rows.of(rank);
    return segments.empty() ? Segment{0, 0, 0} : segments[0];
  }

  // Columns that a row looks at, by shapes alone.
  std::int64_t work(std::int64_t position) const {
    const bool upper_left = spread_.call.attributes.text("causal") == "upper_left";
    const std::int64_t diagonal = upper_left ? 0 : spread_.columns.extent - spread_.rows.extent;
    return std::clamp<std::int64_t>(position + diagonal + 1, 0, spread_.columns.extent);
  }

  std::int64_t handed_rows(const Segment& early, const Segment& late) const {
    std::int64_t surplus = 0, rows = 0;
    for (std::int64_t i = 0; i < late.count; ++i) surplus += work(late.position + i);
    for (std::int64_t i = 0; i < early.count; ++i) surplus -= work(early.position + i);
    for (; rows < late.count; ++rows) {
      surplus -= 2 * work(late.position + late.count - 1 - rows);
      if (surplus < 0) break;
    }
    return rows;
  }

  // Rows of every head, between blocks of `from_rows` and `to_rows` a head.
  void copy_rows(const std::byte* from, std::int64_t from_rows, std::int64_t from_begin, std::byte* to, std::int64_t to_rows,
                 std::int64_t to_begin, std::int64_t size) const {
    const std::size_t row = bytes(problem_.dtype, size);
    for (std::int64_t line = 0; line < problem_.batch * problem_.heads; ++line)
      std::memcpy(to + static_cast<std::size_t>(line * to_rows + to_begin) * row,
                  from + static_cast<std::size_t>(line * from_rows + from_begin) * row, static_cast<std::size_t>(handed_) * row);
  }

  int peer_;
  Segment late_rows_{};
  std::int64_t handed_ = 0;
  AttentionProblem guests_;
  std::size_t q_bytes_ = 0, out_bytes_ = 0;
};

std::optional<std::string> refuse_balanced(const OpCall& call) {
  if (auto reason = ranks_refusal(call, "qkv", "balanced")) return reason;
  if (call.attributes.text("causal") == "none") return "all rows cost the same";
  if (call.attributes.text("layout") != "contiguous") return "it is for layout='contiguous'";
  if (!call.has_operand(kMask)) return std::nullopt;
  const std::vector<Dim>& mask = call.operand(kMask).dims;
  // One row where a rank holds one may be its own.
  const bool rows = mask.size() > 1 && (mask[mask.size() - 2] != Dim(1) || call.operand(kQ).dims[2] == Dim(1));
  if (rows) return "its mask differs by rows";
  return std::nullopt;
}

// At most, by the first and the last rank.
Dim sent_balanced(const OpCall& call) {
  const std::int64_t ranks = call.attributes.integer("num_ranks");
  const Type& out = call.results.at(0);
  const Dim rows = max(operand_bytes(call, kQ), product(out.dims) * Dim(bits(out.dtype) / 8));
  return sent_keys_and_values(call) + floor_div(rows * Dim(ranks - 1), Dim(2 * ranks));
}

template <typename K>
std::unique_ptr<PreparedKernel> prepare(const PrepareArgs& args) {
  return std::make_unique<K>(args);
}

}  // namespace

extern const KernelDef attention_all_gather, attention_balanced;
const KernelDef attention_all_gather = {
    .name = "attention_all_gather",
    .op = "Attention",
    .refuse = [](const OpCall& call) { return ranks_refusal(call, "qkv", "all_gather"); },
    .prepare = prepare<AttentionAllGather>,
    .sent_bytes = sent_keys_and_values,
};
const KernelDef attention_balanced = {
    .name = "attention_balanced",
    .op = "Attention",
    .refuse = refuse_balanced,
    .prepare = prepare<AttentionBalanced>,
    .rank = 3,
    .sent_bytes = sent_balanced,
};

}  // namespace tandem::kernels
