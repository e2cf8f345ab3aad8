// Lines of attention's operands moved between the GPUs of a group, from the layout that they have to the one that is wanted.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "comm/peer/room_layout.h"

namespace tandem {
struct RunArgs;
}

namespace tandem::cuda {

// One run of a kernel that pushes, with what it pushes into.
struct Turn {
  const RunArgs& args;
  peer::View view;
  peer::RoomView room;
};

// In bytes.
struct LineSteps {
  std::int64_t batch, head, row;
};

// Lines [batch, heads, rows] of `bytes` for each rank: those for (or of) rank p from from[p] to to[p].
struct LineMove {
  enum class With { all, peers, itself };  // of the ranks
  With with = With::all;
  int batch = 0, heads = 0, rows = 0, bytes = 0;
  const char* from[peer::kMaxRanks] = {};
  char* to[peer::kMaxRanks] = {};
  LineSteps from_steps{}, to_steps{};
  std::int64_t from_group = 0, to_group = 0;  // bytes from the lines of one group to those of the next
  // Rows from `cut` on lie further than their steps say: the second half of a rank's rows where these are two pieces of the sequence.
  int cut = 0;
  std::int64_t from_jump[peer::kMaxRanks] = {}, to_jump[peer::kMaxRanks] = {};
};

// One kernel; what does not happen is −1 or 0. `count` moves are made for one group after the other, each followed by the announcement of
// an event, `announces` and on. Then `awaited` events from `awaits` on are awaited, and the `after` moves behind the others are made.
struct LineMoves {
  LineMove moves[3];
  int count = 0, groups = 1, after = 0;
  int announces = -1, awaits = 0, awaited = 0;
  bool begins = false, ends = false;  // a call of the room
  int blocks = 1;                     // at most
};
// The most that one LineMove may have: rows · bytes.
inline constexpr std::int64_t kMostLineBytes = 0x7fffffff;
void launch_line_moves(const peer::View& view, const peer::RoomView& room, const LineMoves& work, cudaStream_t stream);
// Ends when all ranks have announced the event.
void launch_await(const peer::View& view, const peer::RoomView& room, int event, cudaStream_t stream);

}  // namespace tandem::cuda
