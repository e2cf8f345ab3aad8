// The operands of Attention, by position, and its attributes.
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

// What Attention and FlatAttention are given, and the attributes that both have.
std::vector<Operand> operands();
std::vector<Field> fields();

}  // namespace tandem::attention
