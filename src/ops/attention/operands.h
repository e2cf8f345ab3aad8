// The operands of Attention, by position.
#pragma once

#include <cstddef>
#include <vector>

#include "graph/op_def.h"

namespace tandem::attention {

inline constexpr std::size_t kQ = 0, kK = 1, kV = 2;
inline constexpr std::size_t kMask = 3;  // bool (true: attend) or additive; right-aligned over [B, Hq, Sq, Skv], extents of 1 broadcast
inline constexpr std::size_t kQueryLengths = 4;  // i32 or i64 [B]: rows from there on are zeros
inline constexpr std::size_t kKeyLengths = 5;    // i32 or i64 [B]: columns from there on are not attended to
inline constexpr std::size_t kPast = 6;          // i32 or i64 scalar: keys before the first query

// Their names, for Attention and FlatAttention.
inline std::vector<Operand> operands() {
  return {{"q"},
          {"k"},
          {"v"},
          {"mask", "bool (true: attend) or added to the scores; broadcasts to [B,Hq,Sq,Skv]"},
          {"query_lengths", "i32 or i64 [B]: rows from there on are zeros"},
          {"key_lengths", "i32 or i64 [B]: columns from there on are not attended to"},
          {"past", "i32 or i64 scalar, for causal=offset: keys before the first query"}};
}

}  // namespace tandem::attention
