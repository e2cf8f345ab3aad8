// FlatAttention seen as the Attention it stands for.
#pragma once

#include <array>
#include <cstdint>

#include "graph/op_def.h"

namespace tandem::attention {

struct FlatHeads {
  std::int64_t heads = 1, kv_heads = 1, size = 0, value_size = 0;
  std::array<std::int64_t, 3> begins{};  // of q, k and v: their first column in the operand
};

// The attributes of a FlatAttention; Error(invalid_model) where they make no sense.
FlatHeads flat_heads(const OpCall& call);
// The Attention over [B,H,S,D] that computes the same; Error(invalid_model) where the operands do not fit.
OpCall heads_first(const OpCall& call);

}  // namespace tandem::attention
