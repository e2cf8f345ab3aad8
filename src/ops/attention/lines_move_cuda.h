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
  int batch = 0, heads = 0, rows = 0, bytes = 0;
  const char* from[peer::kMaxRanks] = {};
  char* to[peer::kMaxRanks] = {};
  LineSteps from_steps{}, to_steps{};
  std::int64_t from_group = 0, to_group = 0;  // bytes from the lines of one group to those of the next
  // Rows from `cut` on lie further than their steps say: the second half of a rank's rows where these are two pieces of the sequence.
  int cut = 0;
  std::int64_t from_jump[peer::kMaxRanks] = {}, to_jump[peer::kMaxRanks] = {};
};

// One kernel; what does not happen is −1 or false. All blocks first await `awaited` events from `awaits` on, then move the lines of one
// group after the other, each followed by the announcement of an event, `announces` and on.
struct LineMoves {
  LineMove moves[3];
  int count = 0, groups = 1;
  bool own = true;  // this rank's among them
  int awaits = 0, awaited = 0, announces = -1;
  bool begins = false, ends = false;  // a call of the room
  int blocks = 1;                     // at most
};
// The most that one LineMove may have: rows · bytes.
inline constexpr std::int64_t kMostLineBytes = 0x7fffffff;
void launch_line_moves(const peer::View& view, const peer::RoomView& room, const LineMoves& work, cudaStream_t stream);
// Ends when all ranks have announced the event.
void launch_await(const peer::View& view, const peer::RoomView& room, int event, cudaStream_t stream);

}  // namespace tandem::cuda
