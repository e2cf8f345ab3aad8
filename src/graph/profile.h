// Profiles of programs: the ranges of the symbols in the shapes of their inputs.
#pragma once

#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "graph/graph.h"

namespace tandem {

// Per input one range per dimension. A dimension that is a number must be given that number.
using InputRanges = std::map<std::string, std::vector<SymbolRange>>;
using NamedTypes = std::vector<std::pair<std::string, Type>>;

// What a symbol gets without a range of its own: min 1, opt 8, max 65536 (min 0 if "past" is part of the name; opt and max twice that
// if "total" is).
SymbolRange default_range(const std::string& symbol);

// Ranges of all symbols the inputs hold: those given, defaults elsewhere. Throws Error(invalid_argument) naming the input.
Profile profile_of(const NamedTypes& inputs, const InputRanges& given);
// One per entry of `given`. Where there are several an error says which one is wrong.
std::vector<Profile> profiles_of(const NamedTypes& inputs, const std::vector<InputRanges>& given);

// Adjusts ranges nobody gave (for no input, nor for a symbol that is decided): symbols tied to others by a constraint follow them, and
// maxima drop until every constraint that the minima satisfy holds with each symbol alone at its maximum. `given` has an entry per profile.
void settle_defaults(Graph& graph, const std::vector<InputRanges>& given, const std::set<std::string>& decided = {});

}  // namespace tandem
