#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "tandem/types.h"

namespace tandem::cuda {

// out[i] = offset + i, of an integer type of whole bytes.
void launch_iota(DType dtype, void* out, std::int64_t count, std::int64_t offset, cudaStream_t stream);

}  // namespace tandem::cuda
