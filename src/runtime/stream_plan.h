// Which weights of a rank stay on its device where they do not all fit, and when the others are copied there. Pure: sizes and steps in,
// a plan out; no device is touched.
#pragma once

#include <cstddef>
#include <vector>

namespace tandem {

// Weights in blocks, each of which moves as one: a weight as it is, or what a kernel made of it.
struct WeightUses {
  std::vector<std::size_t> bytes;                    // per block, aligned as a device allocates
  std::vector<bool> stays;                           // per block: it cannot be streamed
  std::vector<std::vector<std::vector<int>>> reads;  // per program and step: the blocks that it reads, each once
};

// A budget holds the blocks that stay and the ring, in which the others arrive.
struct Residency {
  std::vector<bool> resident;  // per block
  std::size_t resident_bytes = 0;
  std::size_t ring_bytes = 0;  // 0 where all blocks are resident
};

std::size_t total_bytes(const WeightUses& uses);
// What stays, and the streamed blocks of the step that reads most.
std::size_t least_budget(const WeightUses& uses);
// The ring is the smallest that holds the blocks of two steps, so that those of one arrive while another computes, if what reads more at a
// time can stay then: a smaller ring leaves more weights resident. Where no such ring
// fits, it is all of the budget but what stays. In what
// is left small blocks are resident first, whose copies would take their time whatever their size, then those that several steps of a
// program read, and of the others so many that the streamed ones lie evenly over the program: each copy then has as much computing to hide
// behind. Deterministic. Throws Error(invalid_argument) with the least budget where this one is smaller.
Residency choose_residents(const WeightUses& uses, std::size_t budget);

// The streamed blocks of one step on their way to the ring.
struct Fetch {
  struct Piece {
    int block = -1;
    std::size_t offset = 0;  // in the ring
    bool operator==(const Piece&) const = default;
  };
  int step = -1;   // that waits for it
  int after = -1;  // the step after which it may begin, for its room was read until then; -1: at once
  std::vector<Piece> pieces;
};

// Those of one program, in the order in which they begin and end; `after` never decreases. `reads` as WeightUses has it.
std::vector<Fetch> plan_fetches(const std::vector<std::vector<int>>& reads, const std::vector<std::size_t>& bytes,
                                const Residency& residency);

}  // namespace tandem
