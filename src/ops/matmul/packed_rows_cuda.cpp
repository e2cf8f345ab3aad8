#include "ops/matmul/packed_rows_cuda.h"

#include <algorithm>
#include <limits>

#include "core/numeric.h"

namespace tandem::cuda {

// Bytes of a multiprocessor's share of memory, as a measure of time. Memory is one, so a wave of blocks takes as long as all its bytes, or
// as the multiprocessor that has most of them. The kernel that follows begins to read where blocks of the last wave leave room.
PackedCut packed_cut(const PackedSize& size, std::span<const int> tiles, int multiprocessors, bool clusters) {
  constexpr std::int64_t kBlocksAtOnce = 2;      // on a multiprocessor
  constexpr std::int64_t kShareOfX = 4;          // x comes from the cache, where this many bytes are as one of memory
  constexpr std::int64_t kAlone = 4 << 10;       // while a block begins and ends
  constexpr std::int64_t kMeeting = 16 << 10;    // the same of one in a cluster
  constexpr std::int64_t kLateStart = 48 << 10;  // of the next kernel, where there is no room before this one's last blocks end
  const std::int64_t all_tiles = ceil_divide(size.n, kTileColumns), slots = kBlocksAtOnce * multiprocessors;
  PackedCut best;
  std::int64_t least = std::numeric_limits<std::int64_t>::max();
  for (const int count : tiles)
    for (int cluster = 1; cluster <= (clusters ? kMostCluster : 1); cluster *= 2) {
      if (cluster > 1 && cluster * kPackedWarps > size.chunks) break;
      const std::int64_t blocks = ceil_divide(all_tiles, count) * cluster;
      const std::int64_t chunks = ceil_divide(size.chunks, std::int64_t{cluster} * kPackedWarps) * kPackedWarps;
      const std::int64_t bytes = chunks * (count * size.tile_bytes + size.x_bytes / kShareOfX) + (cluster > 1 ? kMeeting : kAlone);
      const std::int64_t last = (blocks - 1) % slots + 1;
      const std::int64_t busiest = ceil_divide(last, multiprocessors) * bytes * 4 / 5;  // which reads at up to 5/4 of its share
      std::int64_t cost = (blocks - last) * bytes / multiprocessors + std::max(last * bytes / multiprocessors, busiest);
      cost += std::max<std::int64_t>(0, 2 * last - slots) * kLateStart / slots;
      if (cost < least) least = cost, best = {count, cluster};
    }
  return best;
}

}  // namespace tandem::cuda
