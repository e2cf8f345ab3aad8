// The collectives and reductions, made from collective.def. Public; belongs to core.
#pragma once

#include <cstdint>
#include <string_view>

namespace tandem {

enum class Collective : std::uint8_t {
#define TANDEM_COLLECTIVE(name, op, reduces, rooted, extent) name,
#include "tandem/collective.def"
};

enum class Reduction : std::uint8_t {
#define TANDEM_REDUCTION(name) name,
#include "tandem/collective.def"
};

// "all_reduce", "sum", …
std::string_view to_string(Collective kind);
std::string_view to_string(Reduction reduction);
// Throw Error(invalid_argument) naming the word and the words that exist.
Collective parse_collective(std::string_view word);
Reduction parse_reduction(std::string_view word);

}  // namespace tandem
