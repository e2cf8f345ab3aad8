// Indices as gathers read them.
#pragma once

#include <optional>

#include "core/tensor.h"
#include "graph/op_def.h"

namespace tandem {

// 0 … extent-1; negative ones count from the end. Error(invalid_argument) outside.
std::int64_t checked_index(std::int64_t index, std::int64_t extent);

// The rows that a Gather's table holds: all of them, or a rank's part of them.
struct GatherRows {
  std::int64_t base = 0, extent = 0, whole = 0;
  // Where the row of this index lies in the table; nothing if another rank has it. Error(invalid_argument) if none has.
  std::optional<std::int64_t> find(std::int64_t index) const;
};
GatherRows gather_rows(const OpCall& call, std::int64_t extent);

}  // namespace tandem
