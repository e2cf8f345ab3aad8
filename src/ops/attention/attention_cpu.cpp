// Attention on one device.
#include "core/check.h"
#include "core/tensor.h"
#include "ops/attention/problem_cpu.h"
#include "ops/kernel.h"

namespace tandem::kernels {
namespace {

using namespace attention;

class Attention final : public PreparedKernel {
 public:
  explicit Attention(const PrepareArgs& args) : call_(args.call), problem_(problem_of(args.call)), threads_(args.threads) {}

  std::size_t workspace_bytes() const override { return attention_workspace(problem_, threads_); }

  void run(const RunArgs& args) const override {
    AttentionProblem p = problem_;
    const std::vector<std::int64_t> rows = lengths_of(call_, kQueryLengths, args.operands),
                                    columns = lengths_of(call_, kKeyLengths, args.operands);
    p.q = args.operands[kQ];
    p.k = args.operands[kK];
    p.v = args.operands[kV];
    p.out = args.results[0];
    if (call_.has_operand(kMask)) p.mask = args.operands[kMask];
    p.row_counts = rows;
    p.column_counts = columns;
    p.diagonal = diagonal_of(call_, args.operands, p.rows, p.columns);
    run_attention(p, args.pool, args.workspace);
  }

 private:
  OpCall call_;
  AttentionProblem problem_;
  int threads_;
};

std::optional<std::string> refuse(const OpCall& call) {
  if (call.attributes.integer("num_ranks") > 1) return "it is spread over several ranks";
  return attention_refusal(call);
}

}  // namespace

extern const KernelDef attention;
const KernelDef attention = {
    .name = "attention",
    .op = "Attention",
    .refuse = refuse,
    .prepare = [](const PrepareArgs& args) -> std::unique_ptr<PreparedKernel> { return std::make_unique<Attention>(args); },
};

}  // namespace tandem::kernels
