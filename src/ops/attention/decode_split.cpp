#include "ops/attention/decode_split.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace tandem::cuda {
namespace {

// Where parts are merged, memory idles for long enough that the next call gains by asking for keys then: on an H200 9 % at 8192 keys, 6 %
// at 16384, 3 % at 32768 (batch 1, 8 kv heads). With 64 steps of 16 keys for a warp it lost: blocks then
// end at times too different. Not tried with clusters beside parts; those alone gain at some lengths and lose at others.
constexpr std::int64_t kMostEarlySteps = 32;

// Bytes in a nanosecond: of one multiprocessor while all read, the most that a block gets, and that the blocks of a multiprocessor get;
// nanoseconds until a block's first keys are there, for blocks of a cluster to merge, and for the last block to merge parts. Read off an
// H200.
constexpr double kShare = 32, kBlockShare = 33, kMostShare = 46, kFirstKeys = 1500, kCluster = 700, kMergeParts = 2500, kMergeEach = 30;

double nanoseconds(const DecodeSplit& split, const DecodeBlocks& kind, std::int64_t tasks, std::int64_t steps, int step_bytes,
                   int multiprocessors) {
  const std::int64_t blocks = tasks * split.parts * split.cluster, slices = split.parts * split.cluster;
  const double busy = static_cast<double>(std::min<std::int64_t>(blocks, kind.at_once));
  // Clusters do not come out even on all multiprocessors: more of them than fit one block each have blocks that share one with another.
  const int alone = kind.at_once / kind.on_one / kind.cluster * kind.cluster;
  const double on_one = std::ceil(busy / std::max(alone, kind.cluster));
  const double share = std::min({kBlockShare, kMostShare / on_one, kShare * multiprocessors / busy});
  const std::int64_t of_block = (steps + slices - 1) / slices, of_warp = (of_block + split.warps - 1) / split.warps;
  // Warps that have a step more than others determine the time of the block.
  const double bytes = static_cast<double>(of_warp * split.warps) * step_bytes;
  const double waves = std::ceil(static_cast<double>(blocks) / kind.at_once), begins = std::ceil(waves / on_one);
  return waves * bytes / share + begins * (kFirstKeys + (split.cluster > 1 ? kCluster : 0)) +
         (split.parts > 1 ? kMergeParts + kMergeEach * split.parts : 0);
}

}  // namespace

DecodeSplit decode_split(std::int64_t tasks, std::int64_t steps, int step_bytes, int multiprocessors, std::span<const DecodeBlocks> kinds) {
  DecodeSplit best;
  double least = std::numeric_limits<double>::infinity();
  for (const DecodeBlocks& kind : kinds) {
    if (kind.at_once == 0) continue;
    // More parts than one are for blocks that the GPU would not have to do.
    const std::int64_t most = std::min({std::int64_t{kMostDecodeParts}, steps / kind.cluster, kind.at_once / (tasks * kind.cluster)});
    for (int parts = 1; parts == 1 || parts <= most; ++parts) {
      const DecodeSplit split{kind.cluster, parts, kind.warps};
      const double time = nanoseconds(split, kind, tasks, steps, step_bytes, multiprocessors);
      if (time >= least) continue;
      best = split;
      least = time;
    }
  }
  best.asks_early = best.parts > 1 && best.cluster == 1 && steps <= kMostEarlySteps * best.warps * best.parts;
  return best;
}

}  // namespace tandem::cuda
