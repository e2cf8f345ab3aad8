// What the threads of a warp do together in CUDA C++. All that have not ended take part.
#pragma once

#include <cstdint>
#include <cstring>

#include "emulator/block.h"

namespace tandem::emulator {

// The value of lane `lane`.
template <typename T>
T value_of_lane(T mine, unsigned lane) {
  static_assert(sizeof(T) <= 8);
  std::uint64_t bits = 0;
  std::memcpy(&bits, &mine, sizeof mine);
  bits = Block::here().exchange({bits})[lane][0];
  std::memcpy(&mine, &bits, sizeof mine);
  return mine;
}

}  // namespace tandem::emulator

inline void __syncwarp(unsigned = ~0u) { tandem::emulator::Block::here().meet_in_warp(); }
template <typename T>
T __shfl_xor_sync(unsigned, T value, int mask, int = 32) {
  return tandem::emulator::value_of_lane(value, tandem::emulator::Block::here().lane() ^ static_cast<unsigned>(mask));
}
template <typename T>
T __shfl_sync(unsigned, T value, int from, int width = 32) {
  const auto lane = tandem::emulator::Block::here().lane(), wide = static_cast<unsigned>(width);
  return tandem::emulator::value_of_lane(value, lane / wide * wide + static_cast<unsigned>(from) % wide);
}
template <typename T>
T __shfl_up_sync(unsigned, T value, unsigned by, int width = 32) {
  const auto lane = tandem::emulator::Block::here().lane();
  return tandem::emulator::value_of_lane(value, lane % static_cast<unsigned>(width) < by ? lane : lane - by);
}
template <typename T>
T __shfl_down_sync(unsigned, T value, unsigned by, int width = 32) {
  const auto lane = tandem::emulator::Block::here().lane(), wide = static_cast<unsigned>(width);
  return tandem::emulator::value_of_lane(value, lane % wide + by >= wide ? lane : lane + by);
}
inline unsigned __ballot_sync(unsigned mask, int vote) {
  const auto* votes = tandem::emulator::Block::here().exchange({vote != 0});
  unsigned all = 0;
  for (unsigned lane = 0; lane < 32; ++lane)
    if (mask >> lane & 1 && votes[lane][0] != 0) all |= 1u << lane;
  return all;
}
inline int __any_sync(unsigned mask, int vote) { return __ballot_sync(mask, vote) != 0; }
inline int __all_sync(unsigned mask, int vote) { return __ballot_sync(mask, !vote) == 0; }
// Of int or unsigned.
template <typename T>
T __reduce_max_sync(unsigned mask, T value) {
  for (int step = 16; step > 0; step /= 2) {
    const T other = __shfl_xor_sync(mask, value, step);
    value = value < other ? other : value;
  }
  return value;
}
template <typename T>
T __reduce_min_sync(unsigned mask, T value) {
  return ~__reduce_max_sync(mask, ~value);
}
