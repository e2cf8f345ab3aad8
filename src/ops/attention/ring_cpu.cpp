// Attention over a split sequence: blocks of keys and values travel from rank to rank while each rank attends to the one it has. Besides
// its own a rank holds two blocks and never the whole sequence.
#include "core/tensor.h"
#include "ops/attention/partial_cpu.h"
#include "ops/attention/ranks_cpu.h"
#include "ops/layout/copy_cpu.h"
#include "ops/shape_rules.h"

namespace tandem::kernels {
namespace {

using namespace attention;

class AttentionRing final : public PreparedKernel {
 public:
  explicit AttentionRing(const PrepareArgs& args) : spread_(args), segments_(spread_.rows.of(spread_.rank)) {
    const AttentionProblem& p = spread_.problem;
    k_bytes_ = bytes(p.dtype, element_count(shape_of(args.call.operand(kK))));
    v_bytes_ = bytes(p.dtype, element_count(shape_of(args.call.operand(kV))));
    block_bytes_ = aligned(aligned(k_bytes_) + v_bytes_);
    for (const Segment& rows : segments_) {
      partial_floats_.push_back(PartialRows::floats(lines_of(rows), p.value_size));
      merged_bytes_ += floats_bytes(partial_floats_.back());
      part_bytes_ = std::max(part_bytes_, floats_bytes(partial_floats_.back()));
    }
  }

  std::size_t workspace_bytes() const override {
    return 2 * block_bytes_ + merged_bytes_ + part_bytes_ + attention_workspace(spread_.problem, spread_.threads);
  }

  void run(const RunArgs& args) const override {
    RunValues values = spread_.values(args);
    const AttentionProblem& p = spread_.problem;
    clear_padding(spread_.rows, values.out, bytes(p.dtype, spread_.rows.local * p.batch * p.heads * p.value_size));
    std::byte *here = args.workspace, *next = here + block_bytes_;
    copy_bytes(args.pool(), values.k, here, k_bytes_);
    copy_bytes(args.pool(), values.v, here + aligned(k_bytes_), v_bytes_);
    std::vector<bool> begun(segments_.size(), false);
    for (int step = 0; step < spread_.ranks; ++step) {
      values.k = here;
      values.v = here + aligned(k_bytes_);
      std::function<void()> shift;  // the next block comes while this one is in use
      if (step + 1 < spread_.ranks) shift = [&] { pass_on(args, here, next); };
      attend(args, values, (spread_.rank - step + spread_.ranks) % spread_.ranks, begun, shift);
      if (shift) shift();
      std::swap(here, next);
    }
    for (std::size_t i = 0; i < segments_.size(); ++i) {
      if (!begun[i]) merged(args, i).clear(args.pool());
      merged(args, i).store(Piece(p, values, segments_[i], {0, 0, 0}).problem, args.pool());
    }
  }

 private:
  static std::size_t floats_bytes(std::int64_t count) { return aligned(static_cast<std::size_t>(count) * sizeof(float)); }
  std::int64_t lines_of(const Segment& rows) const { return spread_.problem.batch * spread_.problem.heads * rows.count; }

  PartialRows partial(std::byte* at, std::size_t segment) const {
    return {reinterpret_cast<float*>(at), lines_of(segments_[segment]), spread_.problem.value_size};
  }
  PartialRows merged(const RunArgs& args, std::size_t segment) const {
    std::byte* at = args.workspace + 2 * block_bytes_;
    for (std::size_t i = 0; i < segment; ++i) at += floats_bytes(partial_floats_[i]);
    return partial(at, segment);
  }

  void pass_on(const RunArgs& args, const std::byte* here, std::byte* next) const {
    const Shape dims = {static_cast<std::int64_t>(block_bytes_)};
    spread_.run({.kind = Collective::shift, .dtype = DType::u8, .dims = dims, .in = here, .out = next}, args);
  }

  // This rank's rows against the block that `source` brought in; takes `shift` along with the first piece of work.
  void attend(const RunArgs& args, const RunValues& values, int source, std::vector<bool>& begun, std::function<void()>& shift) const {
    std::byte* spare = args.workspace + 2 * block_bytes_ + merged_bytes_;
    for (std::size_t i = 0; i < segments_.size(); ++i)
      for (const Segment& columns : spread_.columns.of(source)) {
        Piece piece(spread_.problem, values, segments_[i], columns);
        if (!piece.sees_any()) continue;
        const PartialRows part = begun[i] ? partial(spare, i) : merged(args, i);
        part.receive(piece.problem);
        run_attention(piece.problem, args.pool(), spare + part_bytes_, shift);
        shift = nullptr;
        if (begun[i]) merged(args, i).merge(part, args.pool());
        begun[i] = true;
      }
  }

  Spread spread_;
  std::vector<Segment> segments_;
  std::vector<std::int64_t> partial_floats_;  // per segment
  std::size_t k_bytes_ = 0, v_bytes_ = 0, block_bytes_ = 0, merged_bytes_ = 0, part_bytes_ = 0;
};

}  // namespace

extern const KernelDef attention_ring;
const KernelDef attention_ring = {
    .name = "attention_ring",
    .op = "Attention",
    .refuse = [](const OpCall& call) { return ranks_refusal(call, "qkv", "ring"); },
    .prepare = [](const PrepareArgs& args) -> std::unique_ptr<PreparedKernel> { return std::make_unique<AttentionRing>(args); },
    .rank = 2,
    .sent_bytes = sent_keys_and_values,
};

}  // namespace tandem::kernels
