// Attention over a split sequence by heads where GPUs reach each other's memory: kernels push rows of q, k and v from where they lie to
// where the rank of their heads attends to them, and results to where they are wanted.
#pragma once

#include "ops/attention/one_device_cuda.h"

namespace tandem::attention {

// `args.call` is the Attention over ranks that is meant, `problem` how this rank's q, k, v and result lie (the result fills its memory),
// `begins` as in one_device_cuda.h. Null where it cannot be done so, on all ranks alike. run() is collective, and allocates what peers push
// into when it is called first.
std::unique_ptr<PreparedKernel> prepare_pushed_attention(const PrepareArgs& args, const AttentionProblem& problem, OperandBegins begins);

}  // namespace tandem::attention
