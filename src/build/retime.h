// Timing the kernels of a plan that exists already, as a build that times would have.
#pragma once

#include "build/build.h"

namespace tandem {

// Times the candidates of every step whose kernel was chosen by rule and takes the fastest, with its algorithm. Values, weights and where
// results lie stay: a candidate that would change them, or what ranks send, is left out with that reason. A kernel that was asked for by
// name (`options.kernels`) stays, and so does one where nothing can be timed. Steps that have a time are left alone. Returns how many steps
// got one.
// Of the options it takes measure, which must be there, cache, kernels, dependent_launch, sm, machine and progress.
int retime(Plan& plan, const PlanOptions& options);

}  // namespace tandem
