// What a kernel sees of where it runs: its block, its thread, and what the threads of a block do together.
#pragma once

#include <vector_types.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <vector>

#include "emulator/copies.h"
#include "emulator/fibers.h"

namespace tandem::emulator {

struct Grid {
  dim3 blocks, threads;
  std::size_t shared = 0;        // bytes of dynamic shared memory
  std::function<void()> kernel;  // by every thread
};

inline constexpr unsigned kWarp = 32;
inline constexpr std::size_t kMostShared = 163 << 10;  // bytes that a block may ask for

// Shared memory as 32 bits tell it apart, and back.
unsigned shared_number(const void* at);
std::byte* shared_place(unsigned number);

class Block {
 public:
  Block(const Grid& grid, uint3 index);
  // All threads, to their end. `seed`: of their order.
  void run(std::uint64_t seed);

  // The one whose thread calls.
  static Block& here();
  const Grid& grid() const { return grid_; }
  uint3 index() const { return index_; }
  uint3 thread() const;
  std::byte* shared();
  // Of the calling thread.
  Copies& copies() { return copies_[static_cast<std::size_t>(Fibers::here().current())]; }
  bool meet(bool vote = false) { return Fibers::here().meet(all_, vote); }
  void meet_in_warp() { Fibers::here().meet(warp()); }
  // What all threads of the warp give, by lane; until the warp's next but one exchange.
  using Given = std::array<std::uint64_t, 3>;
  const Given* exchange(const Given& mine);
  unsigned lane() const { return static_cast<unsigned>(Fibers::here().current()) % kWarp; }

 private:
  Meeting& warp() { return warps_[static_cast<std::size_t>(Fibers::here().current()) / kWarp]; }

  const Grid& grid_;
  uint3 index_;
  Meeting all_;
  std::vector<Meeting> warps_;
  // By thread: what it gives to its warp, in turn here and there, so that nobody overwrites what another has yet to read; and whose turn.
  std::vector<Given> given_[2];
  std::vector<char> turn_;
  std::vector<Copies> copies_;
};

}  // namespace tandem::emulator
