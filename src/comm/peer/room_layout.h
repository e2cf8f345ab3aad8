// Memory of a group's ranks that kernels of other folders push into where their results are to be read: what lies where, and by which
// rules. Plain: device code reads it too. Device code for it is room.cuh.
//
// Every rank has two areas, `there` and `back`, and words of arrival. Work goes in calls, numbered by each rank's GPU, so that recordings
// may be replayed. A call has two parts: first all ranks push into their peers' `there`, then, of what they made of it, into their peers'
// `back`. Each part has one or more events; a rank announces an event to all ranks once what it sends for it lies there, also where that is
// nothing, and a call is over on a rank when it has awaited all its events and read what came.
//
// Why one copy of each area is enough: a rank pushes into a peer's `there` in call k + 1 after it has awaited the peer's last event of call
// k, which the peer announces after it has read its `there`. And it pushes into the peer's `back` after it has awaited the first event of
// the peer's call k + 1, which the peer announces after its call k is over. A word of arrival holds the number of the last call that
// announced the event, so that neither a late look nor calls of fewer events matter. What lies where within an area does not matter either.
#pragma once

#include <cstddef>
#include <cstdint>

#include "comm/peer/layout.h"

namespace tandem::peer {

inline constexpr int kRoomEvents = 64;  // of a call, both parts together

// Of a rank, in memory of its GPU that nobody else uses. Starts as zeros.
struct RoomState {
  std::uint32_t calls;                // that are over
  std::uint32_t blocks[kRoomEvents];  // of a kernel that announces an event: those that are done
  std::uint32_t readers;              // of the kernel that ends a call: blocks that are done
};

// A kernel's view of a room.
struct RoomView {
  char* there[kMaxRanks];  // by rank, as this GPU addresses them
  char* back[kMaxRanks];
  char* arrivals[kMaxRanks];  // words, kArrivalStride apart, by event and sender
  RoomState* state;
};

}  // namespace tandem::peer
