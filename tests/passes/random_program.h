// Random programs of [B,S,C] values with products, attention, norms and reshapes, and random ways to shard them.
#pragma once

#include <memory>
#include <random>

#include "passes/evaluate.h"
#include "passes/shard.h"

namespace tandem::testing {

struct Dice {
  explicit Dice(std::uint64_t seed) : random(seed) {}
  int pick(int below) { return static_cast<int>(random() % static_cast<std::uint64_t>(below)); }
  std::mt19937_64 random;
};

// The symbols are B, S and P (the length of caches, may be 0); sources are filled.
std::unique_ptr<Module> random_program(Dice& dice);
// A mesh of 2 to 6 ranks over axes a and b, a strategy for each, and placements for some inputs and outputs.
ShardOptions random_options(Dice& dice, const Graph& graph);

}  // namespace tandem::testing
