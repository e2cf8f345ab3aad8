#include "emulator/block.h"

#include <algorithm>

namespace tandem::emulator {
namespace {

thread_local Block* running = nullptr;
// Beside what kernels declare as shared, so that 32 bits tell all of it apart.
alignas(256) thread_local std::byte dynamic_shared[kMostShared];
constexpr std::ptrdiff_t kMiddle = std::ptrdiff_t{1} << 31;

unsigned threads_of(const Grid& grid) { return grid.threads.x * grid.threads.y * grid.threads.z; }

}  // namespace

unsigned shared_number(const void* at) { return static_cast<unsigned>(static_cast<const std::byte*>(at) - dynamic_shared + kMiddle); }
std::byte* shared_place(unsigned number) { return dynamic_shared + (std::ptrdiff_t{number} - kMiddle); }

Block& Block::here() { return *running; }

Block::Block(const Grid& grid, uint3 index) : grid_(grid), index_(index), turn_(threads_of(grid)), copies_(threads_of(grid)) {
  const unsigned threads = threads_of(grid);
  for (auto& given : given_) given.resize((threads + kWarp - 1) / kWarp * kWarp);
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

std::byte* Block::shared() { return dynamic_shared; }

uint3 Block::thread() const {
  const auto i = static_cast<unsigned>(Fibers::here().current());
  const dim3 t = grid_.threads;
  return {i % t.x, i / t.x % t.y, i / (t.x * t.y)};
}

const Block::Given* Block::exchange(const Given& mine) {
  const auto me = static_cast<std::size_t>(Fibers::here().current());
  std::vector<Given>& given = given_[static_cast<std::size_t>(turn_[me])];
  turn_[me] ^= 1;
  given[me] = mine;
  meet_in_warp();
  return given.data() + me / kWarp * kWarp;
}

}  // namespace tandem::emulator
