// Which kernel is taken where nothing was timed.
#pragma once

#include <span>

#include "ops/kernel.h"

namespace tandem {

// Of kernels that can run the call, in their own order: the first of those that send the fewest bytes. `typical` has values of symbols;
// those without one count as kTypicalExtent.
const KernelDef* choose_by_rule(std::span<const KernelDef* const> able, const OpCall& call, const SymbolValues& typical);
inline constexpr std::int64_t kTypicalExtent = 64;

// The one that a plan for the device would take for a call; null if none can run it.
const KernelDef* kernel_by_rule(const OpCall& call, std::string_view device);

}  // namespace tandem
