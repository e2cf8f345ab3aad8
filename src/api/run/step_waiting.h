// How long ranks on GPUs waited for each other, from the times of all of them.
#pragma once

#include <vector>

#include "plan/plan.h"
#include "team/rank_link.h"

namespace tandem {

// A GPU waits inside of kernels, where its clock does not look. But all ranks leave an all-reduce, reduce-scatter, all-gather or all-to-all
// together, once the last one has come: that one takes the shortest, and what the others take longer they wait. Sets `waited_ns` of these
// steps; no clocks of different GPUs are compared. Steps of `program`, by rank, as one run gave them.
void tell_waiting(const Plan& plan, std::size_t program, std::vector<std::vector<TraceEvent>>& ranks);

}  // namespace tandem
