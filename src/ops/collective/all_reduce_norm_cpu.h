// All-reduce with the norm that follows it, by a kernel for each of the two.
#pragma once

#include <memory>

#include "ops/kernel.h"

namespace tandem::kernels {

// By the kernels that a plan for `device` would take for the two ops. Both results and the kernels' workspace are its only memory.
std::unique_ptr<PreparedKernel> prepare_all_reduce_then_norm(const PrepareArgs& args, std::string_view device);

}  // namespace tandem::kernels
