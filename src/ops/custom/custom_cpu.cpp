#include "ops/custom/custom_cpu.h"

#include <fmt/format.h>

namespace tandem::kernels {

std::optional<std::string> custom_refusal(const OpCall& call, std::function<void(const CustomCall&)> CustomOp::*function,
                                          std::string_view device) {
  const std::string& name = call.attributes.text("op");
  const CustomOp* op = find_custom_op(name);
  if (!op) return fmt::format("op '{}' is not registered in this program: call tandem::register_op() before loading", name);
  if (!(op->*function)) return fmt::format("op '{}' is registered without code for {}", name, device);
  return std::nullopt;
}

extern const KernelDef custom_cpu;
const KernelDef custom_cpu = {
    .name = "custom_cpu",
    .op = "Custom",
    .refuse = [](const OpCall& call) { return custom_refusal(call, &CustomOp::cpu, "cpu"); },
    .prepare = [](const PrepareArgs& args) -> std::unique_ptr<PreparedKernel> {
      return std::make_unique<CustomKernel>(args.call, custom_op_of(args.call).cpu);
    },
};

}  // namespace tandem::kernels
