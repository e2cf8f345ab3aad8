// A step of a plan as the call of its op.
#pragma once

#include "plan/plan.h"

namespace tandem {

// With symbolic Dims. `op` is the step's, and outlives the call.
OpCall call_of(const Program& program, const Step& step, const OpDef& op);

// The operand (its position) in whose memory result 0 lies; -1: in its own.
int place_of_result(const Program& program, const Step& step);

}  // namespace tandem
