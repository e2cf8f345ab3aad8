#include "ops/collective/all_reduce_norm_cpu.h"

#include <algorithm>

#include "core/check.h"
#include "ops/collective/all_reduce_norm.h"
#include "ops/rule_cpu.h"

namespace tandem::kernels {
namespace {

class AllReduceThenNorm final : public PreparedKernel {
 public:
  AllReduceThenNorm(const PrepareArgs& args, std::string_view device) {
    const AllReduceNorm parts = parts_of(args.call);
    PrepareArgs reduce{parts.reduce, args.weights.first(1), nullptr, args.threads, args.group, args.device};
    reduce_ = kernel(parts.reduce, device).prepare(reduce);
    std::vector<const std::byte*> weights(args.weights.begin(), args.weights.end());
    weights.at(0) = nullptr;
    norm_ = kernel(parts.norm, device).prepare({parts.norm, weights, nullptr, args.threads, nullptr, args.device});
  }

  std::size_t workspace_bytes() const override { return std::max(reduce_->workspace_bytes(), norm_->workspace_bytes()); }

  // What was reduced lies where the sum is to be, which the norm adds the residual to.
  void run(const RunArgs& args) const override {
    std::byte* const reduced[] = {args.results[1]};
    reduce_->run({args.operands.first(1), reduced, args.workspace, args.stream, args.deadline});
    std::vector<const std::byte*> operands(args.operands.begin(), args.operands.end());
    operands[0] = reduced[0];
    norm_->run({operands, args.results, args.workspace, args.stream, args.deadline});
  }

 private:
  static const KernelDef& kernel(const OpCall& call, std::string_view device) {
    const KernelDef* chosen = kernel_by_rule(call, device);
    if (!chosen) fail(ErrorCode::unsupported, "no kernel of this build can run its {}", call.op->name);
    return *chosen;
  }

  std::unique_ptr<PreparedKernel> reduce_, norm_;
};

constexpr KernelDef define(std::string_view name, std::string_view op) {
  return {
      .name = name,
      .op = op,
      .prepare = [](const PrepareArgs& args) { return prepare_all_reduce_then_norm(args, "cpu"); },
      .in_place_operand = 0,
  };
}

}  // namespace

std::unique_ptr<PreparedKernel> prepare_all_reduce_then_norm(const PrepareArgs& args, std::string_view device) {
  return std::make_unique<AllReduceThenNorm>(args, device);
}

extern const KernelDef all_reduce_add_layer_norm, all_reduce_add_rms_norm;
const KernelDef all_reduce_add_layer_norm = define("all_reduce_add_layer_norm", "AllReduceAddLayerNorm");
const KernelDef all_reduce_add_rms_norm = define("all_reduce_add_rms_norm", "AllReduceAddRmsNorm");

}  // namespace tandem::kernels
