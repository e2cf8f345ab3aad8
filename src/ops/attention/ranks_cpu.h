// Attention whose sequences lie spread over ranks: who holds which positions, and the pieces that kernels compute.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "comm/group.h"
#include "ops/attention/problem_cpu.h"
#include "ops/kernel.h"

namespace tandem::attention {

// Rows of a block that are neighbours in the whole sequence.
struct Segment {
  std::int64_t local, position, count;
};

// One sequence over the ranks: `local` positions on each. Those from `extent` on are padding.
struct Blocks {
  int ranks = 1;
  std::int64_t local = 0, extent = 0;
  bool zigzag = false;  // the chunks r and 2·ranks − 1 − r of 2·ranks

  std::int64_t padded() const { return ranks * local; }
  // What a rank holds, by position, without padding and without segments of no rows.
  std::vector<Segment> of(int rank) const;
  // The blocks of all ranks one after the other: neighbours are one segment where the layout allows it.
  std::vector<Segment> all() const;
};

// Values that one run brings.
struct RunValues {
  const std::byte *q, *k, *v, *mask;
  std::byte* out;
  std::vector<std::int64_t> row_counts, column_counts;  // of the whole sequences
  std::int64_t diagonal;                                // of the whole sequences
};

// Rows of one segment against columns of another, ready to run. Not copied: the problem points into it.
struct Piece {
  Piece(const AttentionProblem& whole, const RunValues& values, const Segment& rows, const Segment& columns);
  Piece(const Piece&) = delete;
  Piece& operator=(const Piece&) = delete;
  // False if neither causal nor lengths let any row attend to any column.
  bool sees_any() const;

  AttentionProblem problem;

 private:
  std::vector<std::int64_t> row_counts_, column_counts_;
};

// What all kernels for several ranks read from a call.
class Spread {
 public:
  // Throws Error(invalid_argument) where shapes do not fit the layout, Error(mismatch) for a group of another size.
  explicit Spread(const PrepareArgs& args);

  RunValues values(const RunArgs& args) const;
  // The collective with this rank's deadline; nothing happens where there are no bytes.
  void run(CollectiveCall call, const RunArgs& args) const;

  OpCall call;
  AttentionProblem problem;  // q and out as this rank holds them; mask rows like q, its columns of the whole sequence
  Blocks rows, columns;      // under split = kv all ranks hold all rows
  Group* group;
  int rank = 0, ranks = 1;
  int threads = 1;
};

// Why a kernel that can do the given split cannot run it; `algorithm` is the attribute's word for it, empty: any.
std::optional<std::string> ranks_refusal(const OpCall& call, std::string_view split, std::string_view algorithm);

// Bytes of an operand as one rank holds it.
Dim operand_bytes(const OpCall& call, std::size_t operand);
// Bytes a rank sends where all gather everyone's keys and values, or pass them round.
Dim sent_keys_and_values(const OpCall& call);

// Blocks in rank order become whole sequences in order of position: [lines, ranks·local, bytes] both.
void order_positions(const Blocks& blocks, ThreadPool& pool, const std::byte* from, std::byte* to, std::int64_t lines,
                     std::size_t row_bytes);

// Zeros in all rows of `out`, where some are padding that no piece writes.
void clear_padding(const Blocks& blocks, std::byte* out, std::size_t size);

inline std::size_t aligned(std::size_t bytes) { return (bytes + 63) / 64 * 64; }

}  // namespace tandem::attention
