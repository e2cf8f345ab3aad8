// What kernels of NonZero share: how zeros are told, and the extents that an index is taken apart by.
#pragma once

#include <cstdint>

#include "graph/op_def.h"

namespace tandem {

struct NonZeroView {
  std::size_t element_bytes = 1;
  std::uint64_t mask = 0;  // of an element's bits: zero has none of these; the sign of a float is none
  Shape extents;
  std::int64_t count = 0;
};
// Of a bound call whose elements fill whole bytes.
NonZeroView nonzero_view(const OpCall& call);

}  // namespace tandem
