// Exchange between the GPUs of a group from inside kernels: put, signal, wait. For .cu files of any folder that have a View; they start
// kernels that wait through spinning<kernel>() (spinning.h).
// Waiting loops give up, and let their kernel fall through, once the group was aborted or the View's limit has passed; what the kernel then
// leaves is worth nothing, and the group tells its host.
#pragma once

#include <cuda_runtime.h>

#include "comm/peer/layout.h"
#include "device/cuda/memory.cuh"

namespace tandem::peer {

using cuda::load_acquire;
using cuda::load_word;
using cuda::store_release;
using cuda::store_word;

inline constexpr std::uint32_t kEmpty = 0xffffffffu;

__device__ __forceinline__ std::uint32_t load_plain(const std::uint32_t* at) {
  return *reinterpret_cast<const volatile std::uint32_t*>(at);
}
__device__ __forceinline__ void store_plain(std::uint32_t* at, std::uint32_t v) { *reinterpret_cast<volatile std::uint32_t*>(at) = v; }

// Words of floats: all ones mean that nothing has come, so a sender writes another NaN instead.
__device__ __forceinline__ bool is_empty(const uint4& v) { return v.x == kEmpty || v.y == kEmpty || v.z == kEmpty || v.w == kEmpty; }
__device__ __forceinline__ std::uint32_t never_empty(std::uint32_t v) { return v == kEmpty ? 0x7fff7fffu : v; }
__device__ __forceinline__ uint4 never_empty(uint4 v) { return {never_empty(v.x), never_empty(v.y), never_empty(v.z), never_empty(v.w)}; }
__device__ __forceinline__ void wipe(void* at) { store_word(at, {kEmpty, kEmpty, kEmpty, kEmpty}); }

// Whether a thread that has waited so long should give up. Not a function of its own: calls make ptxas keep registers in memory. The memory
// of the host is slow to read: one thread of the GPU does it at a time.
__device__ __forceinline__ bool should_end(const View& view, long long waited, int peer) {
  State& state = *view.state;
  if (load_plain(&state.ended) != 0) return true;
  bool ends = waited > view.limit;
  if (!ends && load_plain(&state.asking) == 0 && atomicExch(&state.asking, 1u) == 0) {
    ends = load_plain(&view.page->abort) != 0;
    atomicExch(&state.asking, 0u);
  }
  if (!ends || atomicExch(&state.ended, 1u) != 0) return ends;
  *reinterpret_cast<volatile std::int32_t*>(&view.page->waited_for) = peer;
  __threadfence_system();
  store_plain(&view.page->gave_up, 1);
  return true;
}

// Of one thread: over() after each look in vain, with the rank it waits for. Once true it stays true.
class Wait {
 public:
  __device__ __forceinline__ bool over(const View& view, int peer) {
    if (ended_ || (++looks_ & 31) != 0) return ended_;
    const long long now = clock64();
    if (looks_ == 32) start_ = now;
    constexpr long long kQuiet = 30000;  // clock cycles, which are about 20 µs
    if (now - start_ > kQuiet) ended_ = should_end(view, now - start_, peer);
    return ended_;
  }
  // A new wait begins.
  __device__ __forceinline__ void restart() { looks_ = 0; }

 private:
  unsigned looks_ = 0;
  bool ended_ = false;
  long long start_ = 0;
};

// Where the words of lane `lane` lie at `rank` in a slot.
__device__ __forceinline__ char* word_lane(const View& view, int rank, int lane, unsigned slot) {
  return view.slab[rank] + Slab::kWords + (static_cast<std::size_t>(slot) * kLanes + lane) * kWordLane;
}
__device__ __forceinline__ char* data_lane(const View& view, int rank, int lane, unsigned slot) {
  return view.slab[rank] + Slab::kData + (static_cast<std::size_t>(slot) * kLanes + lane) * kDataLane;
}
__device__ __forceinline__ std::uint32_t* arrival(const View& view, int rank, int lane, int sender) {
  return reinterpret_cast<std::uint32_t*>(view.slab[rank] + Slab::kArrivals + (lane * kMaxRanks + sender) * kArrivalStride);
}

// For the host, one more collective, in its first kernel, which all ranks run: what was begun is read with the first that a block reads,
// and one more told once that has come, so that nobody waits for it alone. Telling before a fence makes the fence wait for the host.
__device__ __forceinline__ bool is_counting(const View& view) {
  return blockIdx.x == 0 && threadIdx.x == 0 && threadIdx.y == 0 && view.begun;
}
__device__ __forceinline__ std::uint64_t load_begun(const View& view) {
  return is_counting(view) ? *static_cast<const volatile std::uint64_t*>(view.begun) : 0;
}
__device__ __forceinline__ void tell_begun(const View& view, std::uint64_t before) {
  if (!is_counting(view)) return;
  *static_cast<volatile std::uint64_t*>(view.begun_seen) = before + 1;
  *static_cast<volatile std::uint64_t*>(view.begun) = before + 1;
}

// What a block does first, all its threads together: the state of its lane; ended: it must send nothing and return, else tell_begun(begun).
struct Turn {
  LaneState lane;
  bool ended;
  std::uint64_t begun;
};
__device__ __forceinline__ Turn begin_turn(const View& view) {
  Turn turn;
  turn.begun = load_begun(view);
  turn.lane.calls = load_plain(&view.state->lanes[blockIdx.x].calls);
  turn.lane.arrivals = load_plain(&view.state->lanes[blockIdx.x].arrivals);
  turn.ended = __syncthreads_or(load_plain(&view.state->ended) != 0);
  return turn;
}

// Raises this rank's counter in a lane at all peers, after everything that the block has written. By all threads.
__device__ __forceinline__ void signal_peers(const View& view, int lane, std::uint32_t count) {
  __syncthreads();
  const int peer = static_cast<int>(threadIdx.x);
  if (peer >= view.size || peer == view.rank) return;
  __threadfence_system();
  store_release(arrival(view, peer, lane, view.rank), count);
}

// Until the counters of all peers have reached `count` in this rank's lane; false: given up. By all threads, and the same to all.
__device__ __forceinline__ bool await_peers(const View& view, int lane, std::uint32_t count, Wait& wait) {
  const int peer = static_cast<int>(threadIdx.x);
  bool ended = false;
  if (peer < view.size && peer != view.rank) {
    const std::uint32_t* at = arrival(view, view.rank, lane, peer);
    wait.restart();
    while (static_cast<std::int32_t>(load_acquire(at) - count) < 0 && !(ended = wait.over(view, peer))) {
    }
  }
  return __syncthreads_or(ended) == 0;
}

}  // namespace tandem::peer
