#include "ops/attention/lines_move_cuda.h"

#include <algorithm>

#include "comm/peer/room.cuh"
#include "comm/peer/spinning.h"
#include "device/cuda/dependent.cuh"
#include "ops/move_cuda.cuh"

namespace tandem::cuda {
namespace {

constexpr int kThreads = 512;
// Units that a thread has on their way at once: few blocks need more of them to keep a link busy.
constexpr int kOfMany = 4, kOfFew = 16, kFewBlocks = 32;

// A LineMove as tiles: the units of one (batch entry, head), kThreads · AtOnce at a time.
struct Tiling {
  Divisor row_units, head_tiles, heads;     // units of a row; tiles of a head; heads of a batch entry
  std::uint32_t head_units = 0, tiles = 0;  // of a head; of all, for one rank
};
struct Tilings {
  Tiling of[3];
  Divisor rank_tiles;  // of all moves, for one rank
  std::uint32_t tiles = 0;
};

// Past the cache of this multiprocessor: peers may have written it.
template <typename U>
__device__ __forceinline__ U load(const char* at) {
  return __ldcg(reinterpret_cast<const U*>(at));
}

template <typename U, int kAtOnce>
__device__ __forceinline__ void move_tile(const LineMove& m, const Tiling& t, std::uint32_t tile, int peer, int group) {
  const std::uint32_t first = take_index(tile, t.head_tiles) * (kThreads * kAtOnce) + threadIdx.x;
  const std::int64_t head = take_index(tile, t.heads), batch = tile;
  const char* from = m.from[peer] + group * m.from_group + batch * m.from_steps.batch + head * m.from_steps.head;
  char* to = m.to[peer] + group * m.to_group + batch * m.to_steps.batch + head * m.to_steps.head;
  const std::int64_t from_jump = m.from_jump[peer], to_jump = m.to_jump[peer];
  U units[kAtOnce];
#pragma unroll
  for (int k = 0; k < kAtOnce; ++k) {
    if (first + k * kThreads >= t.head_units) continue;
    std::uint32_t row = first + k * kThreads;
    const std::uint32_t at = take_index(row, t.row_units) * static_cast<std::uint32_t>(sizeof(U));
    units[k] = load<U>(from + row * m.from_steps.row + (static_cast<int>(row) < m.cut ? 0 : from_jump) + at);
  }
#pragma unroll
  for (int k = 0; k < kAtOnce; ++k) {
    if (first + k * kThreads >= t.head_units) continue;
    std::uint32_t row = first + k * kThreads;
    const std::uint32_t at = take_index(row, t.row_units) * static_cast<std::uint32_t>(sizeof(U));
    *reinterpret_cast<U*>(to + row * m.to_steps.row + (static_cast<int>(row) < m.cut ? 0 : to_jump) + at) = units[k];
  }
}

template <typename U, int kAtOnce>
__global__ void __launch_bounds__(kThreads) move_lines(const __grid_constant__ peer::View view, const __grid_constant__ peer::RoomView room,
                                                       const __grid_constant__ LineMoves m, const __grid_constant__ Tilings tilings) {
  const std::uint64_t begun = m.begins ? peer::load_begun(view) : 0;
  peer::Wait wait;
  if (__syncthreads_or(peer::load_plain(&view.state->ended) != 0)) return;
  if (m.begins) peer::tell_begun(view, begun);
  for (int event = 0; event < m.awaited; ++event)
    if (!peer::await_event(view, room, m.awaits + event, wait)) return;
  for (int group = 0; group < m.groups; ++group) {
    for (std::uint32_t i = blockIdx.x; i < tilings.tiles; i += gridDim.x) {
      const std::uint32_t turn = quotient(i, tilings.rank_tiles);  // the next rank first, this one last
      std::uint32_t tile = i - turn * tilings.rank_tiles.by;
      int peer = view.rank + 1 + static_cast<int>(turn), which = 0;
      if (peer >= view.size) peer -= view.size;
      while (tile >= tilings.of[which].tiles) tile -= tilings.of[which++].tiles;
      move_tile<U, kAtOnce>(m.moves[which], tilings.of[which], tile, peer, group);
    }
    if (m.announces >= 0) peer::announce(view, room, m.announces + group);
  }
  if (m.ends) peer::end_call(room);
}

__global__ void __launch_bounds__(32)
    await(const __grid_constant__ peer::View view, const __grid_constant__ peer::RoomView room, int event) {
  peer::Wait wait;
  if (peer::load_plain(&view.state->ended) == 0) peer::await_event(view, room, event, wait);
}

// The largest unit that all addresses and distances are multiples of.
std::uint64_t unit_of(const LineMoves& work, int ranks) {
  std::uint64_t all = 16;
  const auto add = [&](std::int64_t distance) { all |= static_cast<std::uint64_t>(distance); };
  for (int i = 0; i < work.count; ++i) {
    const LineMove& m = work.moves[i];
    for (int p = 0; p < ranks; ++p) {
      all |= reinterpret_cast<std::uintptr_t>(m.from[p]) | reinterpret_cast<std::uintptr_t>(m.to[p]);
      add(m.from_jump[p]);
      add(m.to_jump[p]);
    }
    add(m.from_group);
    add(m.to_group);
    for (const LineSteps& steps : {m.from_steps, m.to_steps}) {
      add(steps.batch);
      add(steps.head);
      add(steps.row);
    }
    add(m.bytes);
  }
  return all & ~(all - 1);  // the lowest bit
}

Tilings tilings_of(const LineMoves& work, int ranks, std::uint64_t unit, std::uint32_t tile) {
  Tilings tilings;
  std::int64_t rank_tiles = 0;
  for (int i = 0; i < work.count; ++i) {
    const LineMove& m = work.moves[i];
    Tiling& t = tilings.of[i];
    t.head_units = static_cast<std::uint32_t>(std::int64_t{m.rows} * m.bytes / static_cast<std::int64_t>(unit));
    const std::uint32_t head_tiles = (t.head_units + tile - 1) / tile;
    t.row_units = Divisor(std::max<std::int64_t>(m.bytes / static_cast<std::int64_t>(unit), 1));
    t.head_tiles = Divisor(std::max<std::int64_t>(head_tiles, 1));
    t.heads = Divisor(std::max(m.heads, 1));
    t.tiles = static_cast<std::uint32_t>(m.batch) * static_cast<std::uint32_t>(m.heads) * head_tiles;
    rank_tiles += t.tiles;
  }
  tilings.rank_tiles = Divisor(std::max<std::int64_t>(rank_tiles, 1));
  tilings.tiles = static_cast<std::uint32_t>(rank_tiles * (work.own ? ranks : ranks - 1));
  return tilings;
}

template <typename U, int kAtOnce>
void launch_of(const peer::View& view, const peer::RoomView& room, const LineMoves& work, std::uint64_t unit, cudaStream_t stream) {
  const Tilings tilings = tilings_of(work, view.size, unit, kThreads * kAtOnce);
  const unsigned blocks = std::clamp(tilings.tiles, 1u, static_cast<unsigned>(work.blocks));
  start_kernel(stream, peer::spinning<move_lines<U, kAtOnce>>(), blocks, kThreads, 0, view, room, work, tilings);
}

}  // namespace

void launch_line_moves(const peer::View& view, const peer::RoomView& room, const LineMoves& work, cudaStream_t stream) {
  const std::uint64_t unit = unit_of(work, view.size);
  switch (unit) {
    case 16:
      if (work.blocks <= kFewBlocks) return launch_of<uint4, kOfFew>(view, room, work, unit, stream);
      return launch_of<uint4, kOfMany>(view, room, work, unit, stream);
    case 8: return launch_of<uint2, kOfMany>(view, room, work, unit, stream);
    case 4: return launch_of<unsigned int, kOfMany>(view, room, work, unit, stream);
    case 2: return launch_of<unsigned short, kOfMany>(view, room, work, unit, stream);
    default: return launch_of<unsigned char, kOfMany>(view, room, work, unit, stream);
  }
}

void launch_await(const peer::View& view, const peer::RoomView& room, int event, cudaStream_t stream) {
  start_kernel(stream, peer::spinning<await>(), 1, 32, 0, view, room, event);
}

}  // namespace tandem::cuda
