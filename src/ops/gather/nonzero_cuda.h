#pragma once

#include <cuda_runtime.h>

#include <cstdint>

namespace tandem::cuda {

inline constexpr int kNonZeroRank = 8;
inline constexpr int kNonZeroTile = 4096;  // elements of a block

// Elements of 1, 2, 4 or 8 bytes; one that has none of the bits of `mask` is zero.
struct NonZeroLaunch {
  std::int64_t count = 0;
  std::uint64_t mask = 0;
  std::uint32_t element_bytes = 1;
  int rank = 0;
  std::int64_t extents[kNonZeroRank] = {};
};
// `starts` has a number for each tile. `indices` has room for [rank, count], and holds [rank, found], dense, once `found` is written.
void launch_nonzero(const NonZeroLaunch& launch, const void* x, std::int64_t* indices, std::int64_t* found, std::int64_t* starts,
                    cudaStream_t stream);

}  // namespace tandem::cuda
