#include <fmt/format.h>

#include <algorithm>

#include "device/code.h"
#include "ops/kernel.h"

namespace tandem {
namespace kernels {
#define TANDEM_KERNEL(name) extern const KernelDef name;
#include "ops/kernels.def"
}  // namespace kernels

std::optional<std::string> refusal(const KernelDef& kernel, const OpCall& call, bool exact, bool compiled) {
  if (exact && !kernel.weaker.empty()) return fmt::format("--exact forbids it: {}", kernel.weaker);
  std::string why;
  if (kernel.texts && !compiled && !can_compile_cuda(&why)) return "NVRTC cannot be used: " + why;
  return kernel.refuse ? kernel.refuse(call) : std::nullopt;
}

std::uint64_t resident_operands(const KernelDef& kernel, const OpCall& call, const std::vector<bool>& weights) {
  std::uint64_t bits = 0;
  for (std::size_t i = 0; kernel.reads_early && i < weights.size() && i < 64; ++i)
    if (weights[i] && kernel.reads_early(call, i)) bits |= std::uint64_t{1} << i;
  return bits;
}

std::span<const KernelDef* const> cpu_kernels() {
  static const KernelDef* const list[] = {
#define TANDEM_KERNEL(name) &kernels::name,
#include "ops/kernels.def"
  };
  return list;
}

std::vector<const KernelDef*> kernels_of(std::string_view op, std::string_view device) {
  std::vector<const KernelDef*> found;
  for (const KernelDef* kernel : device == "cuda" ? cuda_kernels() : cpu_kernels())
    if (kernel->op == op || kernel->op.empty()) found.push_back(kernel);
  std::stable_sort(found.begin(), found.end(), [](const KernelDef* a, const KernelDef* b) { return a->rank < b->rank; });
  return found;
}

const KernelDef* find_kernel(std::string_view name) {
  for (const auto& list : {cpu_kernels(), cuda_kernels()})
    for (const KernelDef* kernel : list)
      if (kernel->name == name) return kernel;
  return nullptr;
}

}  // namespace tandem
