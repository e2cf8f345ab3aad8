// How the first kernel of a step starts.
#pragma once

#include "device/cuda/runtime.h"
#include "device/cuda/start.h"
#include "ops/kernel.h"

namespace tandem::cuda {

inline Start start_of(const RunArgs& args) { return {handle_of(args.stream), args.may_start_early}; }

}  // namespace tandem::cuda
