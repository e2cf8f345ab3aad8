// Attention over a split sequence by keys where GPUs reach each other's memory: kernels push this rank's keys and values from where they
// lie to all ranks, group by group of kv heads, beside the attention to the groups that have come.
#pragma once

#include "ops/attention/one_device_cuda.h"

namespace tandem::attention {

// Arguments, result and run() as prepare_pushed_attention(). Null as well where groups gain nothing, and the
// collectives of the ranks' group do.
std::unique_ptr<PreparedKernel> prepare_pushed_keys(const PrepareArgs& args, const AttentionProblem& problem, OperandBegins begins);

}  // namespace tandem::attention
