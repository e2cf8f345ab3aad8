// What a mask of attention scores says: which part of it is the causal diagonal, and what remains.
#pragma once

#include <optional>
#include <vector>

#include "graph/builder.h"
#include "graph/graph.h"

namespace tandem::passes {

// Row i may attend to column j iff j ≤ i + shift (where given) and all of `others` allow it.
struct Allowed {
  std::optional<Dim> shift;
  std::vector<Value*> others;  // boolean, broadcast against [B, H, rows, columns]
  double low = 0;              // what the file adds where it does not allow: −inf or a number so low that it acts the same
};

// The meaning of a condition (true: attend, or with `inverted` true: mask) over scores [.., rows, columns].
Allowed allowed_by(Value* condition, bool inverted, const Dim& rows, const Dim& columns, GraphBuilder& builder);
// The meaning of an additive mask that holds only 0 and a low number; nothing if it is anything else.
std::optional<Allowed> allowed_by_additive(Value* mask, const Dim& rows, const Dim& columns, GraphBuilder& builder);
// exp of it vanishes beside any score.
bool is_low(std::optional<double> value);

}  // namespace tandem::passes
