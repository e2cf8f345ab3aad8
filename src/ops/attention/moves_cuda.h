// What ranks hold of a split sequence, exchanged between GPUs: [batch, heads, local, width] on each becomes the whole sequence, by
// position, of some heads or of all, and back.
#pragma once

#include <optional>
#include <utility>
#include <vector>

#include "comm/group.h"
#include "ops/attention/ranks_cpu.h"
#include "ops/layout/copy_cuda.h"

namespace tandem::cuda {

// Memory of a run, laid out one after the other.
class Layout {
 public:
  std::size_t add(std::size_t bytes) { return std::exchange(total_, total_ + aligned_size(bytes)); }
  std::size_t total() const { return total_; }

 private:
  std::size_t total_ = 0;
};

struct Exchange {
  Group& group;  // of GPUs
  cudaStream_t stream;
  Deadline deadline;

  // A collective over bytes that only moves them.
  void run(Collective kind, const std::byte* from, std::size_t bytes, std::byte* to) const;
};

class Moves {
 public:
  // heads: [B,H,local,W] of each rank ⇄ [B,H/ranks,padded,W], a rank's heads; all: → [B,H,padded,W] on every rank.
  enum class Kind : std::uint8_t { heads, all };
  Moves(Kind kind, int element_bytes, const Shape& dims, const attention::Blocks& blocks);

  std::size_t whole_bytes() const { return whole_bytes_; }
  std::size_t staging_bytes() const { return kind_ == Kind::heads ? 2 * staged_bytes_ : staged_bytes_; }
  void collect(const Exchange& exchange, const std::byte* from, std::byte* staging, std::byte* to) const;
  // Of heads only: the way back.
  void spread(const Exchange& exchange, const std::byte* from, std::byte* staging, std::byte* to) const;

 private:
  Kind kind_;
  std::size_t local_bytes_, whole_bytes_, staged_bytes_;
  // [B, ranks, H/ranks, …] ⇄ [ranks, B, H/ranks, …]; none where both are the same
  std::optional<StridedCopy> by_rank_, from_rank_;
  std::vector<StridedCopy> order_, disorder_;  // blocks of ranks ⇄ whole sequences
};

}  // namespace tandem::cuda
