// Events of a room (room_layout.h) from inside kernels. Every wait ends as those of exchange.cuh do.
#pragma once

#include "comm/peer/exchange.cuh"
#include "comm/peer/room_layout.h"

namespace tandem::peer {

__device__ __forceinline__ std::uint32_t* event_word(const RoomView& room, int rank, int event, int sender) {
  return reinterpret_cast<std::uint32_t*>(room.arrivals[rank] + (event * kMaxRanks + sender) * kArrivalStride);
}

// Of the call that is under way: the same for all its kernels.
__device__ __forceinline__ std::uint32_t call_number(const RoomView& room) { return load_plain(&room.state->calls) + 1; }

// Whether this block is the last one of its grid to get here; all that the others wrote before is then visible to whom this one tells. By
// all threads of every block; the same to all.
__device__ __forceinline__ bool is_last_block(std::uint32_t* counter) {
  __syncthreads();
  bool last = false;
  if (threadIdx.x == 0) {
    __threadfence_system();
    last = atomicAdd(counter, 1u) + 1 == gridDim.x;
    if (last) {
      store_plain(counter, 0);
      __threadfence_system();
    }
  }
  return __syncthreads_or(last) != 0;
}

// After everything that the grid has written: what this rank sends for an event lies at all ranks, itself among them. By all threads of
// every block.
__device__ __forceinline__ void announce(const View& view, const RoomView& room, int event) {
  if (!is_last_block(&room.state->blocks[event])) return;
  const int peer = static_cast<int>(threadIdx.x);
  if (peer < view.size) store_release(event_word(room, peer, event, view.rank), call_number(room));
}

// Until all ranks have announced an event; false: given up. By all threads of a block, and the same to all.
__device__ __forceinline__ bool await_event(const View& view, const RoomView& room, int event, Wait& wait) {
  const int peer = static_cast<int>(threadIdx.x);
  bool ended = false;
  if (peer < view.size) {
    const std::uint32_t* at = event_word(room, view.rank, event, peer);
    const std::uint32_t number = call_number(room);
    wait.restart();
    while (static_cast<std::int32_t>(load_acquire(at) - number) < 0 && !(ended = wait.over(view, peer))) {
    }
  }
  return __syncthreads_or(ended) == 0;
}

// The call is over on this rank. By all threads of every block of the last kernel in it.
__device__ __forceinline__ void end_call(const RoomView& room) {
  if (is_last_block(&room.state->readers) && threadIdx.x == 0) store_plain(&room.state->calls, load_plain(&room.state->calls) + 1);
}

}  // namespace tandem::peer
