// Ops whose result is a strided view of operand 0, copied: what the kernels of every device need to know about a bound call.
#pragma once

#include "graph/op_def.h"
#include "tandem/types.h"

namespace tandem {

// result[index] = operand[offset + Σ index·stride], in elements.
struct OperandView {
  Shape strides;
  std::int64_t offset = 0;
};

OperandView transpose_view(const OpCall& call);
OperandView slice_view(const OpCall& call);
OperandView expand_view(const OpCall& call);

// Of ShardSlice: [outer, extent, inner] blocks of x, from whose row `begin` on `copied` rows are taken; the other `length` − `copied` are
// zeros.
struct ShardRows {
  std::int64_t outer, extent, inner, begin, length, copied;
};
ShardRows shard_rows(const OpCall& call);

}  // namespace tandem
