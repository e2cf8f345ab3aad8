// The fallback: any op with a plain evaluator runs through it, slowly.
#include <cstring>

#include "core/check.h"
#include "graph/measured.h"
#include "ops/kernel.h"
#include "ops/shape_rules.h"

namespace tandem::kernels {
namespace {

class Plain final : public PreparedKernel {
 public:
  explicit Plain(const OpCall& call) : call_(call) {}

  void run(const RunArgs& args) const override {
    std::vector<Tensor> operands;
    for (std::size_t i = 0; i < call_.operands.size(); ++i) {
      if (!call_.has_operand(i)) {
        operands.emplace_back();
        continue;
      }
      const Type& type = call_.operand(i);
      operands.emplace_back(type.dtype, shape_of(type), args.operands[i], nullptr);
    }
    const std::vector<Tensor> results = call_.op->evaluate(call_, operands);
    check(results.size() == call_.results.size(), "an evaluator gives one tensor per result");
    for (std::size_t i = 0; i < results.size(); ++i) {
      const Type& type = call_.results[i];
      check(results[i].dtype() == type.dtype && results[i].shape() == shape_of(type), "an evaluator gives what was inferred");
      if (results[i].size_bytes() != 0) std::memcpy(args.results[i], results[i].data(), results[i].size_bytes());
    }
  }

 private:
  OpCall call_;
};

std::optional<std::string> refuse(const OpCall& call) {
  if (!call.op->evaluate) return "the op has no plain evaluator";
  if (call.op->collective) return "the op communicates";
  if (measures(call.attributes)) return "the shape of what it gives depends on data";
  if (call.attributes.has("num_ranks") && call.attributes.integer("num_ranks") > 1) return "it is spread over several ranks";
  return std::nullopt;
}

}  // namespace

extern const KernelDef plain;
const KernelDef plain = {
    .name = "plain",
    .op = "",
    .refuse = refuse,
    .prepare = [](const PrepareArgs& args) -> std::unique_ptr<PreparedKernel> { return std::make_unique<Plain>(args.call); },
    .rank = 1000,
};

}  // namespace tandem::kernels
