// Binding of symbolic dimensions: what the shapes of the inputs say about the symbols of a program.
#pragma once

#include <string>
#include <vector>

#include "plan/plan.h"

namespace tandem {

// One global shape per input; measured symbols get their bounds. Throws Error(invalid_argument) naming the input, or the node of a broken
// constraint, with both values. Whether an optimization profile holds the values is not looked at.
SymbolValues bind_symbols(const Program& program, const std::vector<Shape>& shapes);

// The program's constraints, but for those on measured symbols that `symbols` lack; with `measured`, those on that symbol alone. Throws
// Error(invalid_argument) naming the node.
void check_constraints(const Program& program, const SymbolValues& symbols, const std::string& measured = {});

// Names an input, its extent and the range of the program's profile that this is outside of; empty where none is.
std::string misfit(const Program& program, const SymbolValues& symbols);
// How far values are from the program's typical ones: 1 for these, twice that for each doubling of a symbol.
double distance(const Program& program, const SymbolValues& symbols);
// The profile `wanted`; for -1, of those that hold these values the one whose typical ones are nearest. Throws Error(invalid_argument) with
// the misfit of what was wanted, and the profile that would fit.
std::size_t fitting_profile(const Plan& plan, const SymbolValues& symbols, int wanted = -1);
// `profile` as an index. Throws Error(invalid_argument) for a profile that is none; -1 is one if `automatic`.
void check_profile(const Plan& plan, std::int64_t profile, bool automatic = false);
// Extents as numbers.
Shape bound_dims(const std::vector<Dim>& dims, const SymbolValues& symbols);

// The largest values of a profile, but where constraints make a symbol follow from others. Throws Error(invalid_argument) for a profile
// that is none, or where its largest values do not go together.
SymbolValues largest_symbols(const Plan& plan, std::size_t profile);

}  // namespace tandem
