// Reducer: the element-wise reduction of several arrays into one, vectorised for the machine it runs on.
#pragma once

#include <cstddef>

#include "core/collective.h"
#include "tandem/types.h"

namespace tandem {

// out[i] = sources[0][i] ∘ sources[1][i] ∘ …, in this order whatever the machine, so equal inputs give equal bits everywhere.
// `out` may be one of the sources; else they do not overlap. n ≥ 1. 8- and 16-bit floats accumulate in f32 and are rounded once; NaN
// propagates, through max and min too; integers wrap; avg is the (wrapped) sum divided by n, integers truncating toward zero.
using Reducer = void (*)(void* out, const void* const* sources, std::size_t n, std::size_t elements);

// Null where there is none: bool and the 4-bit integers.
Reducer find_reducer(DType dtype, Reduction reduction);

}  // namespace tandem
