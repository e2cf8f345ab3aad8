// Attention of the same queries on all ranks over keys and values that lie in parts (decoding with a cache): every rank attends to its
// part, the small results are gathered and merged in the order of ranks, so that all ranks get the same bits.
#include "core/tensor.h"
#include "ops/attention/partial_cpu.h"
#include "ops/attention/ranks_cpu.h"
#include "ops/shape_rules.h"

namespace tandem::kernels {
namespace {

using namespace attention;

class AttentionParts final : public PreparedKernel {
 public:
  explicit AttentionParts(const PrepareArgs& args) : spread_(args) {
    const AttentionProblem& p = spread_.problem;
    lines_ = p.batch * p.heads * p.rows;
    floats_ = PartialRows::floats(lines_, p.value_size);
    part_bytes_ = aligned(static_cast<std::size_t>(floats_) * sizeof(float));
    all_bytes_ = aligned(static_cast<std::size_t>(floats_ * spread_.ranks) * sizeof(float));
  }

  std::size_t workspace_bytes() const override {
    return 2 * part_bytes_ + all_bytes_ + attention_workspace(spread_.problem, spread_.threads);
  }

  void run(const RunArgs& args) const override {
    const RunValues values = spread_.values(args);
    const Segment rows = {0, 0, spread_.problem.rows};
    const PartialRows own = partial(args.workspace);
    attend(args, values, rows, own);
    std::byte* all = args.workspace + 2 * part_bytes_;
    const Shape dims = {floats_};
    spread_.run({.kind = Collective::all_gather, .dtype = DType::f32, .dims = dims, .in = own.sums, .out = all}, args);
    const PartialRows merged = partial(all);
    for (int r = 1; r < spread_.ranks; ++r)
      merged.merge(partial(all + static_cast<std::size_t>(r) * static_cast<std::size_t>(floats_) * sizeof(float)), args.pool());
    merged.store(Piece(spread_.problem, values, rows, {0, 0, 0}).problem, args.pool());
  }

 private:
  PartialRows partial(std::byte* at) const { return {reinterpret_cast<float*>(at), lines_, spread_.problem.value_size}; }

  // All rows against this rank's columns.
  void attend(const RunArgs& args, const RunValues& values, const Segment& rows, const PartialRows& own) const {
    const PartialRows other = partial(args.workspace + part_bytes_);
    bool begun = false;
    for (const Segment& columns : spread_.columns.of(spread_.rank)) {
      Piece piece(spread_.problem, values, rows, columns);
      if (!piece.sees_any()) continue;
      const PartialRows& part = begun ? other : own;
      part.receive(piece.problem);
      run_attention(piece.problem, args.pool(), args.workspace + 2 * part_bytes_ + all_bytes_);
      if (begun) own.merge(other, args.pool());
      begun = true;
    }
    if (!begun) own.clear(args.pool());
  }

  Spread spread_;
  std::int64_t lines_ = 0, floats_ = 0;
  std::size_t part_bytes_ = 0, all_bytes_ = 0;
};

Dim sent_bytes(const OpCall& call) {
  const std::vector<Dim>& out = call.results.at(0).dims;
  const Dim floats = out[0] * out[1] * out[2] * (out[3] + Dim(2));
  return Dim(call.attributes.integer("num_ranks") - 1) * floats * Dim(4);
}

}  // namespace

extern const KernelDef attention_parts;
const KernelDef attention_parts = {
    .name = "attention_parts",
    .op = "Attention",
    .refuse = [](const OpCall& call) { return ranks_refusal(call, "kv", ""); },
    .prepare = [](const PrepareArgs& args) -> std::unique_ptr<PreparedKernel> { return std::make_unique<AttentionParts>(args); },
    .sent_bytes = sent_bytes,
};

}  // namespace tandem::kernels
