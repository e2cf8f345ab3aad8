// Engines whose plan was made with other libraries than this program has.
#pragma once

#include <string>
#include <vector>

#include "plan/plan.h"

namespace tandem {

// "onednn 2.6.3, here 2.7.1", one for each library of kernels that differs; empty where none does or the plan does not say.
std::vector<std::string> library_differences(const Plan& plan);

// Whether the plan has code for this machine's GPUs, so that kernels of its texts need no compiler.
bool brings_code(const Plan& plan);

// Takes for every step that such a library ran, or whose kernel this program lacks, the kernel that the rule gives here, as far as it
// fits the plan's memory; adds a notice. The same plan and the same program give the same choice, so ranks agree.
void choose_again(Plan& plan);

}  // namespace tandem
