// What lies where in the memory that the ranks of one host share. Everything here starts as zeros.
//
//   region:  RegionHeader | RankPage per rank | the world's group | groups made by split …
//   group:   GroupHeader  | Cell per rank | Mailbox per ordered pair | two slots per rank | two mail slots per ordered pair
//
// Only the pages that are touched take memory, so mailboxes of pairs that never send cost nothing.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

#include "core/collective.h"
#include "tandem/types.h"

namespace tandem::shm {

inline constexpr std::size_t kPage = 4096, kLine = 64;
inline constexpr int kMaxWorld = 256;
inline constexpr std::uint64_t kMagic = 0x32306d656d646e74;  // "tndmem02"

inline std::size_t round_to(std::size_t bytes, std::size_t unit) { return (bytes + unit - 1) / unit * unit; }

// Why the region is unusable; written once.
struct Failure {
  std::atomic<std::uint32_t> state{0};  // 0 fine, 1 being written, 2 readable
  std::int32_t code = 0;
  std::int32_t rank = -1;
  char text[1000] = {};
};

struct alignas(kPage) RegionHeader {
  std::uint64_t magic = kMagic;
  std::uint32_t world = 0;
  std::uint32_t check = 0;  // compare whole descriptors before every collective
  std::uint64_t slot_bytes = 0;
  std::uint64_t mail_bytes = 0;
  std::atomic<std::uint64_t> end{0};       // of the region so far
  std::atomic<std::uint32_t> attached{0};  // ranks that have joined; a futex
  Failure failure;
};

enum class RankState : std::uint32_t { absent, joining, attached, left, failed };

// What a rank tells about itself; peers and the supervisor read it at any time.
struct alignas(kPage) RankPage {
  std::atomic<RankState> state{RankState::absent};
  std::atomic<std::int32_t> pid{0};
  std::atomic<std::uint64_t> pid_namespace{0};
  std::atomic<std::uint64_t> cores[16] = {};  // the CPUs it may run on
  std::atomic<double> loaded{0};              // how much of its weights, 0 … 1
  alignas(kLine) std::atomic<std::int64_t> step{-1};
  std::atomic<std::uint64_t> sequence{0};
  std::atomic<std::int64_t> marked_at_ns{0};
  std::atomic<std::int32_t> waiting_for{-1};
  std::atomic<std::int64_t> waited_ns{0};
  alignas(kLine) std::atomic<std::uint64_t> gpu_sequence{0};  // collectives begun by its GPU, which writes it
};

// A counter that one rank raises and others wait for. The low 32 bits count, and are the futex; the high 32 say what is counted.
struct Signal {
  alignas(2 * kLine) std::atomic<std::uint64_t> value{0};
  alignas(kLine) std::atomic<std::uint32_t> sleepers{0};
};

enum class Activity : std::uint8_t { none, collective, exchange, send, receive };

// What a rank is doing in the group, for comparison and for messages.
struct Descriptor {
  Activity activity = Activity::none;
  Collective kind = Collective::all_reduce;
  std::int8_t reduction = -1;
  DType dtype = DType::f32;
  std::int32_t axis = 0, split_axis = 0, concat_axis = 0, root = 0, shift = 0;
  std::int32_t rank = 0;
  std::int64_t dims[8] = {};  // the first eight
  bool operator==(const Descriptor&) const = default;
};

// The last calls that a rank began elsewhere than here; call_log.cpp says how they are written.
struct Calls {
  static constexpr std::size_t kKept = 16, kTextWords = 14;
  alignas(2 * kLine) std::atomic<std::uint64_t> word[kKept] = {};
  std::atomic<std::uint64_t> text[kKept][kTextWords] = {};
};

struct alignas(2 * kLine) Cell {
  Signal arrived;
  Descriptor descriptor;
  std::atomic<std::uint32_t> left{0};
  Calls calls;
};

struct alignas(2 * kLine) Mailbox {
  Signal sent, taken;
  std::uint64_t message_bytes[2] = {};  // of the message that each mail slot holds a piece of
};

struct alignas(kPage) GroupHeader {
  std::atomic<std::uint32_t> leavers{0};
};

// Offsets inside a group's memory.
struct GroupLayout {
  std::size_t size, slot_bytes, mail_bytes;

  std::size_t cells() const { return sizeof(GroupHeader); }
  std::size_t mailboxes() const { return cells() + size * sizeof(Cell); }
  std::size_t slots() const { return round_to(mailboxes() + size * size * sizeof(Mailbox), kPage); }
  std::size_t mail() const { return slots() + size * 2 * slot_bytes; }
  std::size_t total() const { return mail() + size * size * 2 * mail_bytes; }
};

static_assert(std::atomic<std::uint64_t>::is_always_lock_free && std::atomic<RankState>::is_always_lock_free);

}  // namespace tandem::shm
