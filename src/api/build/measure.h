// Timing candidates on the ranks of this machine.
#pragma once

#include "build/build.h"

namespace tandem {

// Runs a candidate on as many thread ranks as its group has, each with `threads` threads: on trial_operand()s; once to
// warm up, then the median of several runs, the slowest rank's; of a kernel with several algorithms, the fastest. On GPUs a run is several
// calls in a row, recorded as contexts record them, on operands in turn. Error(out_of_memory) for calls too large to try.
Measure make_measure(const std::string& device, int threads);
// What a candidate is timed on as its operand: floats in -1 … 1; indices name elements that exist, lengths the whole extent, masks let all
// pass, other integers are 0. The call is bound.
Tensor trial_operand(const OpCall& call, std::size_t operand, unsigned seed);
// The CPU and the threads per rank, as keys of a timing cache name them.
std::string machine_name(int threads);
// The same of what kernels for the device are timed on: the CPU, or the GPU, which must be there.
std::string machine_name(const std::string& device, int threads);
// Threads per rank: those asked for; where that is 0, the cores are shared out.
int threads_per_rank(int asked, int ranks);

}  // namespace tandem
