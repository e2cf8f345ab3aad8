// Indices as gathers read them.
#pragma once

#include "core/tensor.h"

namespace tandem {

// 0 … extent-1; negative ones count from the end. Error(invalid_argument) outside.
std::int64_t checked_index(std::int64_t index, std::int64_t extent);

}  // namespace tandem
