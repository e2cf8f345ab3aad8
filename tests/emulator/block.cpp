#include "emulator/block.h"

#include <algorithm>

namespace tandem::emulator {
namespace {

thread_local Block* running = nullptr;

unsigned threads_of(const Grid& grid) { return grid.threads.x * grid.threads.y * grid.threads.z; }

}  // namespace

Block& Block::here() { return *running; }

Block::Block(const Grid& grid, uint3 index) : grid_(grid), index_(index), turn_(threads_of(grid)), shared_(grid.shared) {
  const unsigned threads = threads_of(grid);
  for (auto& given : given_) given.resize(threads);
  all_.expected = static_cast<int>(threads);
  for (unsigned first = 0; first < threads; first += kWarp)
    warps_.emplace_back().expected = static_cast<int>(std::min(kWarp, threads - first));
}

void Block::run(std::uint64_t seed) {
  running = this;
  Fibers& fibers = Fibers::here();
  fibers.run(
      static_cast<int>(turn_.size()),
      [&](int) {
        grid_.kernel();
        fibers.leave(all_);
        fibers.leave(warp());
      },
      seed);
  running = nullptr;
}

uint3 Block::thread() const {
  const auto i = static_cast<unsigned>(Fibers::here().current());
  const dim3 t = grid_.threads;
  return {i % t.x, i / t.x % t.y, i / (t.x * t.y)};
}

std::uint64_t Block::exchange(std::uint64_t mine, unsigned other) {
  const auto me = static_cast<std::size_t>(Fibers::here().current()), from = me / kWarp * kWarp + other;
  std::vector<std::uint64_t>& given = given_[static_cast<std::size_t>(turn_[me])];
  turn_[me] ^= 1;
  given[me] = mine;
  meet_in_warp();
  return from < given.size() ? given[from] : mine;
}

}  // namespace tandem::emulator
