// The properties of the collectives, made from collective.def.
#pragma once

#include <span>
#include <string_view>

#include "tandem/collective.h"

namespace tandem {

enum class CollectiveExtent : std::uint8_t { same, times, over };

struct CollectiveInfo {
  Collective kind;
  std::string_view name;    // NCCL's word: "all_reduce"
  std::string_view op;      // the op in graphs: "AllReduce"
  bool reduces;             // needs a Reduction
  bool rooted;              // needs a root
  CollectiveExtent extent;  // of the output along the axis
};

std::span<const CollectiveInfo> collectives();
const CollectiveInfo& info(Collective kind);

}  // namespace tandem
