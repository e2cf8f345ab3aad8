// What ranks compare before they run together.
#pragma once

#include <cstdint>

#include "plan/plan.h"

namespace tandem {

// Equal for equal programs, kernels, meshes and weight recipes.
std::uint64_t plan_fingerprint(const Plan& plan);

}  // namespace tandem
