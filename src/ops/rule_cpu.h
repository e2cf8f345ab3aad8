// Which kernel is taken where nothing was timed.
#pragma once

#include <span>

#include "ops/kernel.h"

namespace tandem {

// Of kernels that can run the call, in their own order: the first of those that send the fewest bytes. `typical` has values of symbols;
// those without one count as kTypicalExtent.
const KernelDef* choose_by_rule(std::span<const KernelDef* const> able, const OpCall& call, const SymbolValues& typical);
inline constexpr std::int64_t kTypicalExtent = 64;

}  // namespace tandem
