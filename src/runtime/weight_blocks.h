// The weights of a rank in blocks, each a weight as it is or what a kernel made of it, and where those are that are streamed.
#pragma once

#include <cstddef>
#include <optional>
#include <vector>

#include "runtime/stream_plan.h"

namespace tandem {

struct WeightBlocks {
  // A weight as it is, or what the kernel of a step makes of its weights.
  struct Source {
    int weight = -1;
    std::size_t program = 0, step = 0;
  };
  WeightUses uses;
  std::vector<Source> sources;              // per block
  std::vector<int> of_weight;               // per weight: its block; -1 where nobody reads it as it is
  std::vector<std::vector<int>> of_packed;  // per program and step: the block of what its kernel made; -1: none, or one that is not moved

  // The number of a new block.
  int add(std::size_t bytes, Source source);
};

// Weights that are not all resident. Immutable once loaded.
struct Streaming {
  WeightBlocks blocks;
  Residency residency;
  std::vector<std::byte*> host;             // per block: in pinned memory; null of what is resident
  std::vector<std::vector<Fetch>> fetches;  // per program

  // Where in the ring a block is that the step reads; nothing where it reads it not, or finds it elsewhere.
  std::optional<std::size_t> offset(std::size_t program, std::size_t step, int block) const;
  bool fetches_for(std::size_t program, std::size_t step) const;
};

// What the weights of one rank take of its device.
struct WeightSizes {
  std::size_t bytes = 0;         // of all of them: a budget from which on nothing is streamed
  std::size_t least_budget = 0;  // with which it runs
  std::size_t ring_bytes = 0;    // with the budget that was asked for: of the ring, once per context
  std::size_t streamed_bytes = 0;
};

}  // namespace tandem
