// Attention on one device, over dense heads or over columns of wider rows.
#include "core/check.h"
#include "core/tensor.h"
#include "ops/attention/problem_cpu.h"
#include "ops/kernel.h"

namespace tandem::kernels {
namespace {

using namespace attention;

class Attention final : public PreparedKernel {
 public:
  // `begins`: the bytes of q, k and v before their first element.
  Attention(OpCall call, AttentionProblem problem, std::array<std::size_t, 3> begins, int threads)
      : call_(std::move(call)), problem_(problem), begins_(begins), threads_(threads) {}

  std::size_t workspace_bytes() const override { return attention_workspace(problem_, threads_); }

  void run(const RunArgs& args) const override {
    AttentionProblem p = problem_;
    const std::vector<std::int64_t> rows = lengths_of(call_, kQueryLengths, args.operands),
                                    columns = lengths_of(call_, kKeyLengths, args.operands);
    p.q = args.operands[kQ] + begins_[kQ];
    p.k = args.operands[kK] + begins_[kK];
    p.v = args.operands[kV] + begins_[kV];
    p.out = args.results[0];
    if (call_.has_operand(kMask)) p.mask = args.operands[kMask];
    p.row_counts = rows;
    p.column_counts = columns;
    p.diagonal = diagonal_of(call_, args.operands, p.rows, p.columns);
    run_attention(p, args.pool(), args.workspace);
  }

 private:
  OpCall call_;
  AttentionProblem problem_;
  std::array<std::size_t, 3> begins_;
  int threads_;
};

std::optional<std::string> refuse(const OpCall& call) {
  if (call.attributes.integer("num_ranks") > 1) return "it is spread over several ranks";
  return attention_refusal(call);
}

std::unique_ptr<PreparedKernel> prepare(const PrepareArgs& args) {
  return std::make_unique<Attention>(args.call, problem_of(args.call), std::array<std::size_t, 3>{}, args.threads);
}

std::unique_ptr<PreparedKernel> prepare_flat(const PrepareArgs& args) {
  const FlatProblem flat = flat_problem_of(args.call);
  return std::make_unique<Attention>(flat.call, flat.problem, flat.begins, args.threads);
}

}  // namespace

extern const KernelDef attention, flat_attention;
const KernelDef attention = {.name = "attention", .op = "Attention", .refuse = refuse, .prepare = prepare};
const KernelDef flat_attention = {.name = "flat_attention", .op = "FlatAttention", .refuse = refuse, .prepare = prepare_flat};

}  // namespace tandem::kernels
