#include "ops/custom/custom_cpu.h"

namespace tandem::kernels {

extern const KernelDef custom_cuda;
const KernelDef custom_cuda = {
    .name = "custom_cuda",
    .op = "Custom",
    .refuse = [](const OpCall& call) { return custom_refusal(call, &CustomOp::cuda, "cuda"); },
    .prepare = [](const PrepareArgs& args) -> std::unique_ptr<PreparedKernel> {
      return std::make_unique<CustomKernel>(args.call, custom_op_of(args.call).cuda);
    },
    .device = "cuda",
};

}  // namespace tandem::kernels
