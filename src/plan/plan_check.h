// What must hold of a plan that came from outside.
#pragma once

#include "plan/plan.h"

namespace tandem {

inline constexpr int kPlanFormat = 1;

// Every index, axis, count and type; Error(invalid_engine) naming program, step or value, and what was expected.
void check_plan(const Plan& plan, const OpSet& ops);

}  // namespace tandem
