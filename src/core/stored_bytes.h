// The bytes of whole tensors, whose 4-bit numbers may end inside a byte.
#pragma once

#include "core/numeric.h"
#include "tandem/types.h"

namespace tandem {

// Bytes that a tensor of `count` elements takes: of an odd number of 4-bit ones, half the last byte is unused.
inline std::size_t stored_bytes(DType type, std::int64_t count) {
  return static_cast<std::size_t>(checked_add(checked_multiply(count, bits(type)), 7) / 8);
}

}  // namespace tandem
