// MatMul by our own vector code: for builds without oneDNN and for empty products.
#pragma once

#include "ops/kernel.h"

namespace tandem::kernels {

std::unique_ptr<PreparedKernel> prepare_highway_matmul(const PrepareArgs& args);

}  // namespace tandem::kernels
