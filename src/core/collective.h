// The collectives and reductions as enums with their properties, made from collective.def.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

namespace tandem {

enum class Collective : std::uint8_t {
#define TANDEM_COLLECTIVE(name, op, reduces, rooted, extent) name,
#include "core/collective.def"
};

enum class Reduction : std::uint8_t {
#define TANDEM_REDUCTION(name) name,
#include "core/collective.def"
};

enum class CollectiveExtent : std::uint8_t { same, times, over };

struct CollectiveInfo {
  Collective kind;
  std::string_view name;  // NCCL's word: "all_reduce"
  std::string_view op;    // the op in graphs: "AllReduce"
  bool reduces;           // needs a Reduction
  bool rooted;            // needs a root
  CollectiveExtent extent;  // of the output along the axis
};

std::span<const CollectiveInfo> collectives();
const CollectiveInfo& info(Collective kind);
std::string_view to_string(Collective kind);
std::string_view to_string(Reduction reduction);
// Throw Error(invalid_argument) naming the word and the words that exist.
Collective parse_collective(std::string_view word);
Reduction parse_reduction(std::string_view word);

}  // namespace tandem
