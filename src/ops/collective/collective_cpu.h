// What the kernels of collectives read out of an op, whatever device they serve.
#pragma once

#include "comm/group.h"
#include "ops/kernel.h"

namespace tandem::kernels {

struct CollectiveOp {
  CollectiveCall call;  // without dims and memory
  Shape dims;           // of the operand
  Shape whole;          // what the group gives
  Shape kept;           // of the result: what is joined may end in padding, which the result leaves off
  int size = 1;         // of the group
};

// Throws Error(mismatch) where the group given is of another size.
CollectiveOp collective_op(const PrepareArgs& args);

}  // namespace tandem::kernels
