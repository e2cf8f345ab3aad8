// Random plans that satisfy check_plan, over small_ops().
#pragma once

#include <optional>

#include "graph/random_module.h"
#include "plan/plan.h"

namespace tandem::testing {

// Nothing for the seeds whose random module is not valid.
std::optional<Plan> random_plan(std::uint64_t seed);
// A plan of two ranks: one replicated weight, one split over "tp", a frozen one, one of i4; and the data of any slice.
Plan small_plan();
Tensor small_slice(const PlanWeight& weight, int rank);

}  // namespace tandem::testing
