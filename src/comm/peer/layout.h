// What lies where in the memory that the GPUs of a group push into, and what a kernel is told about it. Plain: device code reads it too.
//
// Every rank has a slab that all ranks of the group see. A kernel's block b works in lane b of it, and a lane has two slots that its calls
// use in turn:
//
//   words    two slots × lanes: 16-byte words that are all ones until they arrive, and again once they were read
//   data     two slots × lanes: bytes of any kind, with
//   arrivals a counter per lane and sender, raised once what belongs to it lies there
//
// Why two slots are enough: a peer pushes into the slot of call k again in call k + 2 of the lane, after it has finished call k + 1, which
// needed a push of this rank's call k + 1, which follows the end of this rank's call k, which read (and wiped) the slot. So in every call
// each rank sends something to each other rank in every lane that takes part. What a call sends, and where in its slot, does not matter.
#pragma once

#include <cstddef>
#include <cstdint>

namespace tandem::peer {

inline constexpr int kMaxRanks = 8;
inline constexpr int kLanes = 128;
inline constexpr int kThreads = 512;
inline constexpr std::size_t kWord = 16;
inline constexpr std::size_t kWordLane = 256 << 10, kDataLane = 64 << 10;  // bytes of a lane's slot
inline constexpr std::size_t kArrivalStride = 32;

struct Slab {
  static constexpr std::size_t kWords = 0;
  static constexpr std::size_t kData = 2 * kLanes * kWordLane;
  static constexpr std::size_t kArrivals = kData + 2 * kLanes * kDataLane;
  static constexpr std::size_t kBytes = kArrivals + kLanes * kMaxRanks * kArrivalStride;
};

// Of a rank, in memory of the host that its GPU reads and writes.
struct HostPage {
  std::uint32_t abort = 0;       // set by any rank: kernels that wait give up
  std::uint32_t gave_up = 0;     // set by the GPU: a kernel stopped waiting
  std::int32_t waited_for = -1;  // the rank it then waited for, within the group
};

// Of a rank, in memory of its GPU that nobody else uses. Starts as zeros.
struct LaneState {
  std::uint32_t calls = 0;     // that used its words
  std::uint32_t arrivals = 0;  // that its data was raised to
};
struct State {
  LaneState lanes[kLanes];
  std::uint32_t ended = 0;   // a kernel gave up: nothing is sent or waited for any more
  std::uint32_t asking = 0;  // a thread reads the host's memory
};

// A kernel's view of its group.
struct View {
  char* slab[kMaxRanks];  // by rank, as this GPU addresses them
  State* state;
  HostPage* page;  // as this GPU addresses it
  int rank, size;
  long long limit;       // clock cycles that a wait may take
  std::uint64_t* begun;  // collectives that this GPU has begun, and where the host sees it; null: not counted
  std::uint64_t* begun_seen;
};

// Equal rows of contiguous bytes at a stride: a block of a tensor.
struct Rows {
  char* data;
  std::int64_t row;     // bytes of one
  std::int64_t stride;  // bytes from one to the next
  std::int64_t count;

  std::int64_t bytes() const { return row * count; }
};

}  // namespace tandem::peer
