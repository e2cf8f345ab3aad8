#include "ops/attention/key_groups_cuda.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "core/tensor.h"

namespace tandem::attention {
namespace {

// Bytes that one rank sends: fewer are not worth several kernels.
constexpr double kFewBytes = 4 << 20;
// What the parts of an attention take, roughly, on an H200: rates per second.
constexpr double kOperations = 650e12, kSent = 300e9;
constexpr std::int64_t kTileRows = 128;  // of the queries, that a block of cuDNN's kernels attends for

}  // namespace

KeyGroups key_groups_of(const Spread& spread, double group_seconds, int multiprocessors, int most) {
  const AttentionProblem& p = spread.problem;
  const std::int64_t rows = spread.rows.local, columns = spread.columns.padded();
  const double sent = static_cast<double>((spread.ranks - 1) * spread.columns.local) *
                      static_cast<double>(bytes(p.dtype, p.batch * p.kv_heads * (p.size + p.value_size)));
  KeyGroups best;
  if (sent < kFewBytes) return best;
  // Causal rows: those of the last rank, which see the most.
  const bool causal = spread.call.attributes.text("causal") != "none";
  const double seen = static_cast<double>(columns) - (causal ? static_cast<double>(rows) / 2 : 0);
  const double operations = 2.0 * static_cast<double>(p.batch * p.heads * rows) * seen * static_cast<double>(p.size + p.value_size);
  const double tiles = static_cast<double>(p.batch * p.heads * ((rows + kTileRows - 1) / kTileRows)), at_once = multiprocessors;
  double least = std::numeric_limits<double>::infinity();
  for (int groups = 1; groups <= std::min<std::int64_t>(p.kv_heads, most); ++groups) {
    if (p.kv_heads % groups != 0) continue;
    const double some = tiles / groups, waves = std::ceil(some / at_once);
    const double attends = operations / kOperations / groups / (some / (waves * at_once)), travels = sent / kSent / groups;
    const double seconds = travels + (groups - 1) * std::max(travels, attends) + attends + groups * group_seconds;
    if (seconds >= least) continue;
    least = seconds;
    best = {groups, some <= at_once ? 4 : 8};
  }
  return best;
}

}  // namespace tandem::attention
