// Machine code of kernels that are made from CUDA C++, for a plan to bring along.
#pragma once

#include "ops/kernel.h"
#include "plan/plan.h"

namespace tandem {

// Adds what the kernel compiles for the call at the least, typical and largest shapes of the profiles, as far as the plan lacks it, for
// GPUs of compute capability sm / 10; nothing where there is no compiler. Other shapes are compiled when they are bound.
void add_code(Plan& plan, const std::vector<Profile>& profiles, const KernelDef& kernel, const OpCall& call, int sm);

}  // namespace tandem
