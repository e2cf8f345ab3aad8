// An activation over f32 memory.
#pragma once

#include <cstdint>

#include "ops/matmul/problem_cpu.h"

namespace tandem {

// values[i] = activation(values[i]) for i in 0 … count-1.
void activate_floats(Activation activation, float* values, std::int64_t count);

}  // namespace tandem
