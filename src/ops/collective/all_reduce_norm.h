// An op that is two: all-reduce, then the norm of the sum with a residual. What the two are.
#pragma once

#include "graph/op_def.h"

namespace tandem {

struct AllReduceNorm {
  OpCall reduce;  // AllReduce
  OpCall norm;    // AddRmsNorm or AddLayerNorm, with the result of the first for x
};

// Of a call of AllReduceAddRmsNorm or AllReduceAddLayerNorm; bound if that is.
AllReduceNorm parts_of(const OpCall& call);

}  // namespace tandem
