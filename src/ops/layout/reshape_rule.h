// How the dimensions of a Reshape's operand and result fall into common factors.
#pragma once

#include "graph/op_def.h"

namespace tandem {

// [B,S,384] → [B,S,12,32] gives B, S, 12, 32. A stretch without a common refinement gets factors that must stay whole.
ShardingRule reshape_rule(const std::vector<Dim>& from, const std::vector<Dim>& to);

}  // namespace tandem
