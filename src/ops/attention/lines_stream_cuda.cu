#include <algorithm>

#include "comm/peer/room.cuh"
#include "comm/peer/spinning.h"
#include "device/cuda/runtime.h"
#include "ops/attention/lines_tiles_cuda.cuh"
#include "ops/tensor_cores_cuda.cuh"

namespace tandem::cuda {
namespace {

// Pushes by few blocks, beside kernels that keep the caches busy: what comes waits in shared memory and not in registers, so that much is
// on its way, and goes out without a thread that stores it. On an H200, beside attention, four blocks push some 170 GB/s so, and 110 by
// registers, which was slower than attention to what they had brought before.
//
// Every warp has places for kPlaces tiles: one comes, one is sent, one was. It has neighbouring tiles, so that most are found by a step
// from the one before: instructions are what would hold it up.
constexpr unsigned kLanes = 32, kWarps = 8, kPlaces = 3, kLaneUnits = 8, kTileUnits = kLanes * kLaneUnits;
constexpr unsigned kRingBytes = kWarps * kPlaces * kTileUnits * sizeof(uint4);  // 96 KB: what every GPU has
constexpr int kAhead = kPlaces - 2;

// Copies from shared memory in the background, by one thread, which also waits for them.
#if __CUDA_ARCH__ >= 900
constexpr bool kSends = true;
__device__ __forceinline__ void send(void* to, const void* from, unsigned bytes) {
  asm volatile("cp.async.bulk.global.shared::cta.bulk_group [%0], [%1], %2;" ::"l"(__cvta_generic_to_global(to)),
               "r"(static_cast<unsigned>(__cvta_generic_to_shared(from))), "r"(bytes)
               : "memory");
}
__device__ __forceinline__ void end_sends() { asm volatile("cp.async.bulk.commit_group;" ::: "memory"); }
__device__ __forceinline__ void wait_until_read_but_one() { asm volatile("cp.async.bulk.wait_group.read 1;" ::: "memory"); }
__device__ __forceinline__ void wait_until_sent() { asm volatile("cp.async.bulk.wait_group 0;" ::: "memory"); }
// By whoever wrote what is sent; by whoever tells of it.
__device__ __forceinline__ void show_to_sends() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }
__device__ __forceinline__ void show_sent() { asm volatile("fence.proxy.async.global;" ::: "memory"); }
#else
constexpr bool kSends = false;
__device__ __forceinline__ void send(void*, const void*, unsigned) {}
__device__ __forceinline__ void end_sends() {}
__device__ __forceinline__ void wait_until_read_but_one() {}
__device__ __forceinline__ void wait_until_sent() {}
__device__ __forceinline__ void show_to_sends() {}
__device__ __forceinline__ void show_sent() {}
#endif

// A warp's tiles of a group, one after the other.
class Cursor {
 public:
  __device__ Cursor(const LineMoves& work, const Tilings& tilings, const peer::View& view, unsigned i, unsigned tiles, int first, int group)
      : work_(work), tilings_(tilings), view_(view), i_(i), tiles_(tiles), first_(first), group_(group) {
    if (i < tiles) find();
  }
  __device__ __forceinline__ void next() {
    ++i_;
    tile_.first += kTileUnits;
    if (tile_.first >= tiling().head_units && i_ < tiles_) find();
  }
  __device__ __forceinline__ void fetch(uint4* place) const {
    const auto to = static_cast<unsigned>(__cvta_generic_to_shared(place + threadIdx.x % kLanes));
    for_units(tile_.from, move().from_steps.row, tile_.from_jump,
              [&](unsigned k, const char* from) { copy_beside(to + k * kLanes * sizeof(uint4), from, sizeof(uint4)); });
  }
  __device__ __forceinline__ void send_from(const uint4* place) const {
    if (!kSends || !tiling().whole) {
      for_units(tile_.to, move().to_steps.row, tile_.to_jump,
                [&](unsigned k, char* to) { *reinterpret_cast<uint4*>(to) = place[k * kLanes + threadIdx.x % kLanes]; });
      return;
    }
    show_to_sends();
    __syncwarp();
    if (threadIdx.x % kLanes != 0) return;
    const unsigned bytes = min(kTileUnits, tiling().head_units - tile_.first) * static_cast<unsigned>(sizeof(uint4));
    send(tile_.to + place_of<16>(tile_.first, tiling(), move().to_steps.row, tile_.to_jump), place, bytes);
  }

 private:
  __device__ __forceinline__ void find() { tile_ = tile_of(work_, tilings_, view_, i_, first_, group_, kTileUnits); }
  __device__ __forceinline__ const Tiling& tiling() const { return tilings_.of[tile_.which]; }
  __device__ __forceinline__ const LineMove& move() const { return work_.moves[tile_.which]; }

  // Calls `work(k, address)` for this lane's units of the tile.
  template <typename Address, typename Work>
  __device__ __forceinline__ void for_units(Address base, std::int64_t row_step, std::int64_t jump, const Work& work) const {
    const Tiling& t = tiling();
    const unsigned first = tile_.first + threadIdx.x % kLanes;
    if (t.even && tile_.first + kTileUnits <= t.head_units) {
      const Address begin = base + place_of<16>(first, t, row_step, jump);
      const std::int64_t step = t.lane_rows * row_step;
#pragma unroll
      for (unsigned k = 0; k < kLaneUnits; ++k) work(k, begin + k * step);
      return;
    }
#pragma unroll
    for (unsigned k = 0; k < kLaneUnits; ++k)
      if (const unsigned unit = first + k * kLanes; unit < t.head_units) work(k, base + place_of<16>(unit, t, row_step, jump));
  }

  const LineMoves& work_;
  const Tilings& tilings_;
  const peer::View& view_;
  unsigned i_, tiles_;
  int first_, group_;
  Tile tile_{};
};

// This warp's part of `tiles`, of the moves from `first` on.
__device__ __forceinline__ void stream_tiles(const LineMoves& work, const Tilings& tilings, const peer::View& view, unsigned tiles,
                                             int first, int group, uint4* places) {
  const unsigned lane = threadIdx.x % kLanes, warp = threadIdx.x / kLanes, warps = gridDim.x * kWarps;
  const unsigned each = (tiles + warps - 1) / warps, begin = min((blockIdx.x * kWarps + warp) * each, tiles);
  const unsigned count = min(each, tiles - begin);
  const auto place = [&](unsigned n) { return places + (warp * kPlaces + n % kPlaces) * kTileUnits; };
  Cursor comes(work, tilings, view, begin, tiles, first, group), goes = comes;
  const auto fetch = [&](unsigned n) {
    if (n < count) {
      comes.fetch(place(n));
      comes.next();
    }
    end_copies();
  };
  for (unsigned n = 0; n < kAhead; ++n) fetch(n);
  for (unsigned n = 0; n < count; ++n) {
    if (lane == 0) wait_until_read_but_one();
    __syncwarp();
    fetch(n + kAhead);
    wait_for_copies_but<kAhead>();
    goes.send_from(place(n));
    goes.next();
    if (lane == 0) end_sends();
  }
  if (lane == 0) wait_until_sent();
  show_sent();
}

__global__ void __launch_bounds__(kWarps* kLanes)
    stream_lines(const __grid_constant__ peer::View view, const __grid_constant__ peer::RoomView room,
                 const __grid_constant__ LineMoves work, const __grid_constant__ Tilings tilings) {
  if (__syncthreads_or(peer::load_plain(&view.state->ended) != 0)) return;
  extern __shared__ __align__(128) uint4 places[];
  peer::Wait wait;
  for (int group = 0; group <= work.groups; ++group) {  // and what comes after them
    const bool after = group == work.groups;
    for (int event = 0; after && event < work.awaited; ++event)
      if (!peer::await_event(view, room, work.awaits + event, wait)) return;
    stream_tiles(work, tilings, view, after ? tilings.after_tiles : tilings.tiles, after ? work.count : 0, after ? 0 : group, places);
    if (!after && work.announces >= 0) peer::announce(view, room, work.announces + group);
  }
}

}  // namespace

void launch_line_stream(const peer::View& view, const peer::RoomView& room, const LineMoves& work, cudaStream_t stream) {
  const Tilings tilings = tilings_of(work, view.size, sizeof(uint4), kTileUnits);
  const auto kernel = peer::spinning<stream_lines>();
  check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kRingBytes), "pushing lines");
  const unsigned tiles = std::max(tilings.tiles, tilings.after_tiles);
  const unsigned blocks = std::clamp((tiles + kWarps - 1) / kWarps, 1u, static_cast<unsigned>(work.blocks));
  kernel<<<blocks, kWarps * kLanes, kRingBytes, stream>>>(view, room, work, tilings);
}

}  // namespace tandem::cuda
