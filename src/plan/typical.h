// Values of symbols for estimates, timings and random inputs.
#pragma once

#include "plan/plan.h"

namespace tandem {

// Symbols of the inputs: the `opt` values of the first profile of the program or graph; 1 for a symbol without one. Measured ones have
// their bounds.
SymbolValues typical_symbols(const Program& program);
SymbolValues typical_symbols(const Graph& graph);

}  // namespace tandem
