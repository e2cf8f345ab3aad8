// A kernel that does not end by itself, for tests of what happens then.
#pragma once

#include <cuda_runtime.h>

namespace tandem::testing {

// Ends once *stop, memory that host and GPU share, is not 0, at the latest after `seconds`.
void launch_spin(const volatile int* stop, double seconds, cudaStream_t stream);

}  // namespace tandem::testing
