// Timing candidates on the ranks of this machine.
#pragma once

#include "build/build.h"

namespace tandem {

// Runs a candidate on as many thread ranks as its group has, each with `threads` threads: random floats, integers that are valid for the op, masks that let all pass; once to
// warm up, then the median of several runs, the slowest rank's. Error(out_of_memory) for calls too large to try.
Measure make_measure(int threads);
// The CPU and the threads per rank, as keys of a timing cache name them.
std::string machine_name(int threads);

}  // namespace tandem
