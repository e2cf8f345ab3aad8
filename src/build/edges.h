// Which steps of a program start before the one before them has ended.
#pragma once

#include "plan/plan.h"

namespace tandem {

// Sets starts_early and resident of all steps by their kernels: a step starts early where its kernel and that of the step before keep to
// the rules of dependent launches, and may then read weights before it waits.
void find_edges(Program& program);

}  // namespace tandem
