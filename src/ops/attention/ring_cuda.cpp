// Attention over a split sequence on GPUs, the rest of its forms: a ring, where blocks of keys and values travel from rank to rank beside
// the attention to the one that is there, and keys in parts, where every rank has all rows and its own part of the columns.
#include <algorithm>

#include "core/tensor.h"
#include "ops/attention/beside_cuda.h"
#include "ops/attention/merge_cuda.h"
#include "ops/attention/moves_cuda.h"
#include "ops/attention/share_cuda.h"
#include "ops/shape_rules.h"

namespace tandem::kernels {

extern const KernelDef attention_ring, attention_parts;

namespace {

using namespace attention;
using cuda::Layout;

// Memory for partial results of so many lines, as a share gives them.
struct Room {
  Room(Gives gives, const AttentionProblem& p, std::int64_t lines)
      : values(bytes(gives == Gives::sums ? DType::f32 : p.dtype, lines * p.value_size)),
        totals(static_cast<std::size_t>(lines) * (gives == Gives::sums ? sizeof(float2) : sizeof(float))) {}
  std::size_t values, totals;  // bytes
};

// Tells a merge of the shares' results: where the first one's are, in bytes from one to the next.
void give(cuda::AttentionMerge& merge, Gives gives, const std::byte* values, const std::byte* totals, std::size_t step) {
  const bool sums = gives == Gives::sums;
  merge.values = values;
  merge.totals = sums ? reinterpret_cast<const float2*>(totals) : nullptr;
  merge.lse = sums ? nullptr : reinterpret_cast<const float*>(totals);
  merge.value_step = static_cast<std::int64_t>(step / bytes(sums ? DType::f32 : merge.type, 1));
  merge.line_step = static_cast<std::int64_t>(step / (sums ? sizeof(float2) : sizeof(float)));
}

cuda::DeviceIntegers row_counts(const OpCall& call, const RunArgs& args) {
  if (!call.has_operand(kQueryLengths)) return {};
  return {args.operands[kQueryLengths], call.operand(kQueryLengths).dtype == DType::i64};
}

// One row segment's running result, and a share's.
struct Merged {
  std::int64_t lines;
  std::size_t sums, totals, part, part_totals;  // in the workspace
};

class Ring final : public PreparedKernel {
 public:
  explicit Ring(const PrepareArgs& args) : spread_(args), gives_(given_to_merge(args, spread_)), rows_(spread_.rows.of(spread_.rank)) {
    const AttentionProblem& p = spread_.problem;
    k_bytes_ = bytes(p.dtype, element_count(shape_of(args.call.operand(kK))));
    v_bytes_ = bytes(p.dtype, element_count(shape_of(args.call.operand(kV))));
    block_bytes_ = aligned_size(k_bytes_) + aligned_size(v_bytes_);
    at_blocks_[0] = layout_.add(block_bytes_);
    at_blocks_[1] = layout_.add(block_bytes_);
    out_bytes_ = bytes(p.dtype, element_count(shape_of(args.call.results[0])));
    std::size_t workspace = 0;
    for (const Segment& rows : rows_) {
      merged_.push_back(room_for(p.batch * p.heads * rows.count));
      for (int step = 0; step < spread_.ranks; ++step)
        for (const Segment& columns : spread_.columns.of((spread_.rank - step + spread_.ranks) % spread_.ranks)) {
          AttentionProblem part = p;
          part.out_steps = dense_steps(p.heads, rows.count, p.value_size);
          Share share = make_share(args, spread_, part, rows, columns, gives_);
          share.out_begin = 0;
          if (!share.sees_any) continue;
          workspace = std::max(workspace, share.attention->workspace_bytes());
          work_.push_back({step, merged_.size() - 1, std::move(share)});
        }
    }
    std::ranges::stable_sort(work_, {}, &Work::step);
    at_rest_ = layout_.add(workspace);
  }

  std::size_t workspace_bytes() const override { return layout_.total(); }

  void run(const RunArgs& args) const override {
    const cudaStream_t stream = cuda::handle_of(args.stream);
    std::byte *here = args.workspace + at_blocks_[0], *next = args.workspace + at_blocks_[1];
    copy(args.operands[kK], k_bytes_, here, stream);
    copy(args.operands[kV], v_bytes_, here + aligned_size(k_bytes_), stream);
    std::vector<bool> begun(merged_.size(), false);
    const cudaStream_t beside = cuda::handle_of(*args.auxiliary[0]);
    auto work = work_.begin();
    for (int step = 0; step < spread_.ranks; ++step) {
      const bool passes_on = step + 1 < spread_.ranks && block_bytes_ > 0;
      if (passes_on) {
        beside_.begin(stream, beside);
        cuda::Exchange{*spread_.group, beside, args.deadline}.run(Collective::shift, here, block_bytes_, next);
      }
      for (; work != work_.end() && work->step == step; ++work) attend(args, *work, here, begun);
      if (passes_on) beside_.end(stream, beside);
      std::swap(here, next);
    }
    if (spread_.rows.extent != spread_.rows.padded() && out_bytes_ > 0)
      cuda::check(cudaMemsetAsync(args.results[0], 0, out_bytes_, stream), "clearing padding");
    for (std::size_t i = 0; i < merged_.size(); ++i) finish(args, i, begun[i]);
  }

 private:
  struct Work {
    int step;
    std::size_t rows;  // which segment
    Share share;
  };

  Merged room_for(std::int64_t lines) {
    const auto size = static_cast<std::size_t>(lines), width = static_cast<std::size_t>(spread_.problem.value_size);
    const Room part(gives_, spread_.problem, lines);
    return {lines, layout_.add(size * width * sizeof(float)), layout_.add(size * sizeof(float2)), layout_.add(part.values),
            layout_.add(part.totals)};
  }

  static void copy(const std::byte* from, std::size_t size, std::byte* to, cudaStream_t stream) {
    if (size > 0) cuda::check(cudaMemcpyAsync(to, from, size, cudaMemcpyDeviceToDevice, stream), "copying");
  }

  cuda::AttentionMerge merge_of(const RunArgs& args, const Merged& m, bool begun) const {
    std::byte* at = args.workspace;
    return {.type = spread_.problem.dtype,
            .lines = m.lines,
            .batch_lines = m.lines / std::max<std::int64_t>(spread_.problem.batch, 1),
            .size = static_cast<int>(spread_.problem.value_size),
            .sums = reinterpret_cast<float*>(at + m.sums),
            .sums_totals = reinterpret_cast<float2*>(at + m.totals),
            .begun = begun,
            .empty_is_nan = spread_.problem.empty_is_nan};
  }

  void attend(const RunArgs& args, const Work& work, const std::byte* block, std::vector<bool>& begun) const {
    const Merged& m = merged_[work.rows];
    std::byte* const results[] = {args.workspace + m.part, args.workspace + m.part_totals};
    work.share.run(args, block, block + aligned_size(k_bytes_), results, args.workspace + at_rest_);
    cuda::AttentionMerge merge = merge_of(args, m, begun[work.rows]);
    merge.count = 1;
    give(merge, gives_, results[0], results[1], 0);
    cuda::launch_merge_parts(merge, cuda::handle_of(args.stream));
    cuda::check_launch("merging attention");
    begun[work.rows] = true;
  }

  // What was merged, as rows of the result.
  void finish(const RunArgs& args, std::size_t i, bool begun) const {
    const AttentionProblem& p = spread_.problem;
    cuda::AttentionMerge merge = merge_of(args, merged_[i], begun);
    merge.row_counts = row_counts(spread_.call, args);
    merge.first_row = rows_[i].position;
    merge.out = args.results[0] + bytes(p.dtype, rows_[i].local * p.value_size);
    merge.rows = rows_[i].count;
    merge.row_lines = spread_.rows.local;
    cuda::launch_merge_parts(merge, cuda::handle_of(args.stream));
    cuda::check_launch("merging attention");
  }

  Spread spread_;
  Gives gives_;
  std::vector<Segment> rows_;
  std::vector<Merged> merged_;  // per row segment
  std::vector<Work> work_;      // by step
  cuda::Beside beside_;
  Layout layout_;
  std::size_t at_blocks_[2] = {}, at_rest_ = 0, k_bytes_ = 0, v_bytes_ = 0, block_bytes_ = 0, out_bytes_ = 0;
};

// Every rank attends to its own columns; all gather everyone's results and merge them in the same order.
class Parts final : public PreparedKernel {
 public:
  explicit Parts(const PrepareArgs& args) : spread_(args), gives_(given_to_merge(args, spread_)) {
    AttentionProblem p = spread_.problem;
    const Segment rows{0, 0, p.rows};
    lines_ = p.batch * p.heads * p.rows;
    const Room room(gives_, p, lines_);
    totals_begin_ = aligned_size(room.values);
    part_bytes_ = totals_begin_ + aligned_size(room.totals);
    parts_ = spread_.columns.zigzag ? 2 : 1;  // of a rank
    std::vector<Segment> columns = spread_.columns.of(spread_.rank);
    columns.resize(static_cast<std::size_t>(parts_), {0, 0, 0});
    std::size_t workspace = 0;
    for (const Segment& some : columns) {
      shares_.push_back(make_share(args, spread_, p, rows, some, gives_));
      workspace = std::max(workspace, shares_.back().attention->workspace_bytes());
    }
    at_own_ = layout_.add(own_bytes());
    at_all_ = layout_.add(own_bytes() * static_cast<std::size_t>(spread_.ranks));
    at_rest_ = layout_.add(workspace);
  }

  std::size_t workspace_bytes() const override { return layout_.total(); }

  void run(const RunArgs& args) const override {
    const cudaStream_t stream = cuda::handle_of(args.stream);
    std::byte *own = args.workspace + at_own_, *all = args.workspace + at_all_;
    for (const Share& share : shares_) {
      std::byte* const results[] = {own, own + totals_begin_};
      share.run(args, args.operands[kK], args.operands[kV], results, args.workspace + at_rest_);
      own += part_bytes_;
    }
    if (lines_ == 0) return;
    cuda::Exchange{*spread_.group, stream, args.deadline}.run(Collective::all_gather, args.workspace + at_own_, own_bytes(), all);
    const AttentionProblem& p = spread_.problem;
    cuda::AttentionMerge merge = {.type = p.dtype,
                                  .lines = lines_,
                                  .batch_lines = p.heads * p.rows,
                                  .size = static_cast<int>(p.value_size),
                                  .count = parts_ * spread_.ranks,
                                  .out = args.results[0],
                                  .rows = p.rows,
                                  .row_lines = p.rows,
                                  .empty_is_nan = p.empty_is_nan,
                                  .row_counts = row_counts(spread_.call, args)};
    give(merge, gives_, all, all + totals_begin_, part_bytes_);
    cuda::launch_merge_parts(merge, stream);
    cuda::check_launch("merging attention");
  }

 private:
  std::size_t own_bytes() const { return part_bytes_ * static_cast<std::size_t>(parts_); }

  Spread spread_;
  Gives gives_;
  std::vector<Share> shares_;
  std::int64_t lines_ = 0;
  int parts_ = 1;
  std::size_t totals_begin_ = 0, part_bytes_ = 0, at_own_ = 0, at_all_ = 0, at_rest_ = 0;
  Layout layout_;
};

std::optional<std::string> refuse(const OpCall& call, const KernelDef& host) {
  if (auto reason = host.refuse(call)) return reason;
  return own_attention_refusal(call);
}

}  // namespace

extern const KernelDef cuda_attention_ring, cuda_attention_parts;
const KernelDef cuda_attention_ring = {
    .name = "cuda_attention_ring",
    .op = "Attention",
    .refuse = [](const OpCall& call) { return refuse(call, attention_ring); },
    .prepare = [](const PrepareArgs& args) { return prepare_on_gpus<Ring>(args); },
    .rank = 4,
    .sent_bytes = [](const OpCall& call) { return attention_ring.sent_bytes(call); },
    .device = "cuda",
    .auxiliary_streams = 1,
};
const KernelDef cuda_attention_parts = {
    .name = "cuda_attention_parts",
    .op = "Attention",
    .refuse = [](const OpCall& call) { return refuse(call, attention_parts); },
    .prepare = [](const PrepareArgs& args) { return prepare_on_gpus<Parts>(args); },
    .sent_bytes = [](const OpCall& call) { return attention_parts.sent_bytes(call); },
    .device = "cuda",
};

}  // namespace tandem::kernels
