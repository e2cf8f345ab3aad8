// Binding of symbolic dimensions: what the shapes of the inputs say about the symbols of a program.
#pragma once

#include <string>
#include <vector>

#include "plan/plan.h"

namespace tandem {

// One global shape per input. Throws Error(invalid_argument) naming the input, or the node of a broken constraint, with both values;
// the same for values outside every optimization profile.
SymbolValues bind_symbols(const Program& program, const std::vector<Shape>& shapes);
// Extents as numbers.
Shape bound_dims(const std::vector<Dim>& dims, const SymbolValues& symbols);

// The largest values of a profile, but where constraints make a symbol follow from others. Throws Error(invalid_argument) for a profile
// that is none, or where its largest values do not go together.
SymbolValues largest_symbols(const Program& program, std::size_t profile);

}  // namespace tandem
