#pragma once

#include <cstdint>

#include "device/cuda/start.h"
#include "ops/divisor_cuda.h"

namespace tandem::cuda {

inline constexpr int kPadRank = 8;
enum class PadMode : std::uint8_t { constant, reflect, edge };

// Dimensions innermost first, counted in elements of `bytes`, which may be several of the tensor's. `extents` of the result; `before`: rows
// added at the front; `from`: rows of the operand, `strides` apart.
struct PadView {
  PadMode mode = PadMode::constant;
  int bytes = 1, rank = 0;
  std::uint32_t items = 0;
  Divisor extents[kPadRank];
  std::int64_t before[kPadRank] = {}, from[kPadRank] = {}, strides[kPadRank] = {};
  uint4 value = {};  // of `constant`, repeated
};
void launch_pad(const PadView& view, const void* x, void* y, const Start& start);

// Matrices of `rows` × `columns` elements; what lies below (or above) the k-th diagonal becomes 0. `vectors`: 16 bytes lie in one row.
struct TriluView {
  int bytes = 1;
  bool upper = true, vectors = false;
  std::int64_t k = 0, items = 0;  // items: elements, or 16 bytes of them
  Divisor rows, columns;          // columns in items
};
void launch_trilu(const TriluView& view, const void* x, void* y, const Start& start);

}  // namespace tandem::cuda
