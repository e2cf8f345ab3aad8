// What ops with one `axis` of operand 0 share.
#pragma once

#include "graph/op_def.h"

namespace tandem {

// The attribute `axis` as an index from the front. Error(invalid_model) outside the rank.
int axis_of(const OpCall& call);
// Pointwise but for the axis, which mixes and must stay whole.
ShardingRule whole_along_axis(const OpCall& call);

}  // namespace tandem
