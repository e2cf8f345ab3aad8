#pragma once

#include <cstdint>

#include "device/cuda/start.h"
#include "tandem/types.h"

namespace tandem::cuda {

// out[i] = offset + i, of an integer type of whole bytes.
void launch_iota(DType dtype, void* out, std::int64_t count, std::int64_t offset, const Start& start);

}  // namespace tandem::cuda
