#include "ops/kernel.h"

namespace tandem {
namespace kernels {
#define TANDEM_KERNEL(name) extern const KernelDef name;
#include "ops/cuda_kernels.def"
}  // namespace kernels

std::span<const KernelDef* const> cuda_kernels() {
  static const KernelDef* const list[] = {
#define TANDEM_KERNEL(name) &kernels::name,
#include "ops/cuda_kernels.def"
  };
  return list;
}

}  // namespace tandem
