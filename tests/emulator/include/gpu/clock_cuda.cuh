// In place of tests/gpu/clock_cuda.cuh, for emulated GPUs.
#pragma once

#include "emulator/cuda_words.h"

namespace tandem::testing {

inline unsigned long long now_ns() { return static_cast<unsigned long long>(clock64()); }

}  // namespace tandem::testing
