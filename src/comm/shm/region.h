// ShmRegion: the memory through which the ranks of one host form a world, as threads of one process or as processes.
#pragma once

#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "comm/group.h"
#include "comm/shm/layout.h"
#include "core/shared_memory.h"

namespace tandem {

struct ShmOptions {
  std::size_t slot_bytes = 256 << 10;  // per rank and group there are two; larger messages go through them in pieces
  std::size_t mail_bytes = 64 << 10;   // per pair that sends there are two
  bool check = false;                  // compare whole calls before each collective, not only their hashes; TANDEM_CHECK=1 also sets it
};

// How the calls of a rank wait where they are not told.
struct Waiting {
  std::chrono::nanoseconds rendezvous = kRendezvousDeadline;
  std::chrono::nanoseconds step = kStepDeadline;
  std::function<bool()> stop = {};  // as in GroupOptions
};

// One object per process; its threads share it. A region serves one world once: after a failure make a new one.
// Rank processes get the descriptor by inheritance (clear its close-on-exec flag in the child) and call open().
class ShmRegion : public std::enable_shared_from_this<ShmRegion> {
 public:
  static std::shared_ptr<ShmRegion> create(int world, const ShmOptions& options = {});
  // The region behind another process's descriptor; `fd` stays the caller's. Error(invalid_argument) if it is none.
  static std::shared_ptr<ShmRegion> open(int fd);
  ~ShmRegion();

  int fd() const { return memory_.fd(); }
  int world() const { return static_cast<int>(header().world); }

  // Joins as `rank` and waits for all others; Error(timeout) names those that did not come. The group keeps the region alive.
  std::unique_ptr<Group> attach(int rank, Deadline rendezvous = Deadline::after(kRendezvousDeadline));
  // The same in two steps, for those who have something to look after meanwhile: `idle` is called several times a second while ranks are
  // missing, and may throw.
  void enter(int rank);
  std::unique_ptr<Group> wait_for_all(int rank, Deadline rendezvous, Waiting waiting, const std::function<void()>& idle);

  // For a supervisor, or whoever sees it first: ends all waits of all ranks. Only the first failure counts. Callable at any time.
  void mark_failed(int rank, std::string_view reason) { abort(ErrorCode::rank_failed, rank, reason); }
  void abort(ErrorCode code, int rank, std::string_view reason);
  // Throws what abort() was first called with, if it was.
  void throw_if_failed() const {
    if (header().failure.state.load(std::memory_order_relaxed) != 0) [[unlikely]]
      throw_failure();
  }
  [[noreturn]] void throw_failure() const;
  // Ends the waits of all ranks where the StopScope of this thread, which is `rank`, wants it, or `waiting` if there is none. `what` was
  // interrupted.
  void throw_if_stopped(int rank, const Waiting& waiting, const std::function<std::string()>& what);
  Progress progress(int rank) const;
  // False once the process of an attached rank has ended, reaped or not; true where that cannot be told.
  bool alive(int rank);
  // Bytes of memory that all groups of the region take at present.
  std::size_t resident_bytes() const { return memory_.resident_bytes(); }

  // For the groups.
  shm::RegionHeader& header() const { return *reinterpret_cast<shm::RegionHeader*>(base_->data()); }
  shm::RankPage& page(int rank) const;
  shm::GroupLayout layout(std::size_t size) const { return {size, header().slot_bytes, header().mail_bytes}; }
  std::size_t allocate(std::size_t bytes);
  std::shared_ptr<Mapping> map_group(std::size_t offset, std::size_t bytes);
  void discard(std::size_t offset, std::size_t bytes) { memory_.discard(offset, bytes); }
  // Whether every rank can have a core of its own, so that spinning takes nothing from a peer.
  bool roomy() const;

 private:
  explicit ShmRegion(SharedMemory memory) : memory_(std::move(memory)) {}
  [[noreturn]] void throw_missing(Deadline rendezvous);

  SharedMemory memory_;
  std::unique_ptr<Mapping> base_;                                   // header and rank pages
  std::mutex mutex_;                                                // guards what follows
  std::unordered_map<std::size_t, std::weak_ptr<Mapping>> groups_;  // by offset, so that threads share mappings
  std::unordered_map<int, int> pidfds_;                             // by rank
};

}  // namespace tandem
