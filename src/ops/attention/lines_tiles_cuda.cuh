// A LineMove as tiles of units, and where these lie: for the kernels that move lines.
#pragma once

#include "ops/attention/lines_move_cuda.h"
#include "ops/move_cuda.cuh"

namespace tandem::cuda {

inline constexpr int kLineThreads = 512;

// The units of one (batch entry, head) make tiles, the last of which may be smaller.
struct Tiling {
  Divisor row_units, head_tiles, heads, rank_tiles;  // units of a row; tiles of a head; heads of a batch entry; tiles for one rank
  std::uint32_t head_units = 0, tiles = 0;           // of a head; of all
  std::uint32_t cut = 0;                             // units of a head before the jump
  bool whole = false;                                // what a tile goes to is without gaps
  bool even = false;                                 // units of a tile that are a warp apart are lane_rows rows apart
  std::uint32_t lane_rows = 0;
};
struct Tilings {
  Tiling of[3];
  std::uint32_t tiles = 0, after_tiles = 0;  // of the moves for a group; of those after
};

// `unit`: bytes. Of each move, `tile_units` at a time.
Tilings tilings_of(const LineMoves& work, int ranks, std::uint64_t unit, std::uint32_t tile_units);

struct Tile {
  int which;  // of the moves
  const char* from;
  char* to;
  std::int64_t from_jump, to_jump;
  std::uint32_t first;  // unit of the head
};

// Tile `i` of the moves from `which` on.
__device__ __forceinline__ Tile tile_of(const LineMoves& work, const Tilings& tilings, const peer::View& view, std::uint32_t i, int which,
                                        int group, std::uint32_t tile_units) {
  while (i >= tilings.of[which].tiles) i -= tilings.of[which++].tiles;
  const LineMove& m = work.moves[which];
  const Tiling& t = tilings.of[which];
  const std::uint32_t turn = quotient(i, t.rank_tiles);  // the next rank first, this one last
  i -= turn * t.rank_tiles.by;
  int rank = view.rank + (m.with == LineMove::With::itself ? 0 : 1) + static_cast<int>(turn);
  if (rank >= view.size) rank -= view.size;
  Tile tile = {.which = which, .from_jump = m.from_jump[rank], .to_jump = m.to_jump[rank]};
  tile.first = take_index(i, t.head_tiles) * tile_units;
  const std::int64_t head = take_index(i, t.heads), batch = i;
  tile.from = m.from[rank] + group * m.from_group + batch * m.from_steps.batch + head * m.from_steps.head;
  tile.to = m.to[rank] + group * m.to_group + batch * m.to_steps.batch + head * m.to_steps.head;
  return tile;
}

// Of a unit of the tile's head, in bytes.
template <std::size_t kBytes>
__device__ __forceinline__ std::int64_t place_of(std::uint32_t unit, const Tiling& t, std::int64_t row_step, std::int64_t jump) {
  const std::int64_t jumped = unit < t.cut ? 0 : jump;
  const std::uint32_t at = take_index(unit, t.row_units) * static_cast<std::uint32_t>(kBytes);
  return unit * row_step + jumped + at;
}

// The form of kernel for pushes beside attention; units of 16 bytes.
void launch_line_stream(const peer::View& view, const peer::RoomView& room, const LineMoves& work, cudaStream_t stream);

}  // namespace tandem::cuda
