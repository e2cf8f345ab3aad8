#include "ops/attention/lines_move_cuda.h"

#include <algorithm>

#include "comm/peer/room.cuh"
#include "comm/peer/spinning.h"
#include "ops/attention/lines_tiles_cuda.cuh"

namespace tandem::cuda {
namespace {

constexpr int kAtOnce = 4;  // units that a thread has on their way

// Past the cache of this multiprocessor: peers may have written it.
template <typename U>
__device__ __forceinline__ U load(const char* at) {
  return __ldcg(reinterpret_cast<const U*>(at));
}

template <typename U>
__device__ __forceinline__ void move_tile(const LineMoves& work, const Tilings& tilings, const Tile& tile) {
  const LineMove& m = work.moves[tile.which];
  const Tiling& t = tilings.of[tile.which];
  const std::uint32_t first = tile.first + threadIdx.x;
  U units[kAtOnce];
#pragma unroll
  for (int k = 0; k < kAtOnce; ++k)
    if (const std::uint32_t unit = first + k * kLineThreads; unit < t.head_units)
      units[k] = load<U>(tile.from + place_of<sizeof(U)>(unit, t, m.from_steps.row, tile.from_jump));
#pragma unroll
  for (int k = 0; k < kAtOnce; ++k)
    if (const std::uint32_t unit = first + k * kLineThreads; unit < t.head_units)
      *reinterpret_cast<U*>(tile.to + place_of<sizeof(U)>(unit, t, m.to_steps.row, tile.to_jump)) = units[k];
}

template <typename U>
__global__ void __launch_bounds__(kLineThreads)
    move_lines(const __grid_constant__ peer::View view, const __grid_constant__ peer::RoomView room, const __grid_constant__ LineMoves work,
               const __grid_constant__ Tilings tilings) {
  const std::uint64_t begun = work.begins ? peer::load_begun(view) : 0;
  peer::Wait wait;
  if (__syncthreads_or(peer::load_plain(&view.state->ended) != 0)) return;
  if (work.begins) peer::tell_begun(view, begun);
  const auto move_tiles = [&](std::uint32_t tiles, int which, int group) {
    for (std::uint32_t i = blockIdx.x; i < tiles; i += gridDim.x)
      move_tile<U>(work, tilings, tile_of(work, tilings, view, i, which, group, kLineThreads * kAtOnce));
  };
  for (int group = 0; group < work.groups; ++group) {
    move_tiles(tilings.tiles, 0, group);
    if (work.announces >= 0) peer::announce(view, room, work.announces + group);
  }
  for (int event = 0; event < work.awaited; ++event)
    if (!peer::await_event(view, room, work.awaits + event, wait)) return;
  move_tiles(tilings.after_tiles, work.count, 0);
  if (work.ends) peer::end_call(room);
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
  for (int i = 0; i < work.count + work.after; ++i) {
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

template <typename U>
void launch_of(const peer::View& view, const peer::RoomView& room, const LineMoves& work, std::uint64_t unit, cudaStream_t stream) {
  const Tilings tilings = tilings_of(work, view.size, unit, kLineThreads * kAtOnce);
  const unsigned blocks = std::clamp(std::max(tilings.tiles, tilings.after_tiles), 1u, static_cast<unsigned>(work.blocks));
  peer::spinning<move_lines<U>>()<<<blocks, kLineThreads, 0, stream>>>(view, room, work, tilings);
}

constexpr int kFewBlocks = 32;
constexpr unsigned kWarp = 32;

bool is_push_beside(const LineMoves& work) { return work.blocks <= kFewBlocks && !work.begins && !work.ends; }

}  // namespace

Tilings tilings_of(const LineMoves& work, int ranks, std::uint64_t unit, std::uint32_t tile_units) {
  Tilings tilings;
  for (int i = 0; i < work.count + work.after; ++i) {
    const LineMove& m = work.moves[i];
    Tiling& t = tilings.of[i];
    const auto row_units = static_cast<std::uint32_t>(m.bytes / static_cast<std::int64_t>(unit));
    t.head_units = static_cast<std::uint32_t>(m.rows) * row_units;
    const std::uint32_t head_tiles = (t.head_units + tile_units - 1) / tile_units;
    t.row_units = Divisor(std::max(row_units, 1u));
    t.head_tiles = Divisor(std::max(head_tiles, 1u));
    t.heads = Divisor(std::max(m.heads, 1));
    const std::uint32_t rank_tiles = static_cast<std::uint32_t>(m.batch) * static_cast<std::uint32_t>(m.heads) * head_tiles;
    t.rank_tiles = Divisor(std::max(rank_tiles, 1u));
    const int with = m.with == LineMove::With::all ? ranks : m.with == LineMove::With::peers ? ranks - 1 : 1;
    t.tiles = rank_tiles * static_cast<std::uint32_t>(with);
    t.cut = static_cast<std::uint32_t>(m.cut) * row_units;
    const bool jumps_within = m.cut < m.rows && t.cut % tile_units != 0;  // may jump
    t.whole = m.to_steps.row == m.bytes && !jumps_within;
    t.even = row_units > 0 && kWarp % row_units == 0 && !jumps_within;
    t.lane_rows = t.even ? kWarp / row_units : 0;
    (i < work.count ? tilings.tiles : tilings.after_tiles) += t.tiles;
  }
  return tilings;
}

void launch_line_moves(const peer::View& view, const peer::RoomView& room, const LineMoves& work, cudaStream_t stream) {
  const std::uint64_t unit = unit_of(work, view.size);
  switch (unit) {
    case 16:
      if (is_push_beside(work)) return launch_line_stream(view, room, work, stream);
      return launch_of<uint4>(view, room, work, unit, stream);
    case 8: return launch_of<uint2>(view, room, work, unit, stream);
    case 4: return launch_of<unsigned int>(view, room, work, unit, stream);
    case 2: return launch_of<unsigned short>(view, room, work, unit, stream);
    default: return launch_of<unsigned char>(view, room, work, unit, stream);
  }
}

void launch_await(const peer::View& view, const peer::RoomView& room, int event, cudaStream_t stream) {
  peer::spinning<await>()<<<1, 32, 0, stream>>>(view, room, event);
}

}  // namespace tandem::cuda
