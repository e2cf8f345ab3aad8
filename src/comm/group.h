// Group: the ranks that communicate, seen from one of them, and what each collective means.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/collective.h"
#include "core/deadline.h"
#include "tandem/error.h"
#include "tandem/types.h"

namespace tandem {

// One collective operation. Everything but the pointers is the same on all ranks; disagreement is Error(mismatch) on all of them.
// `in` and `out` may be the same memory where the shape does not change (not for all_to_all), else they must not overlap.
struct CollectiveCall {
  Collective kind = Collective::all_reduce;
  std::optional<Reduction> reduction;  // set for the kinds that reduce, and only for them
  DType dtype = DType::f32;
  std::span<const std::int64_t> dims;  // of `in` on each rank
  int axis = 0;                        // the dimension that is concatenated or split; unused by all_to_all and where nothing is
  int split_axis = 0;                  // all_to_all only
  int concat_axis = 0;                 // all_to_all only
  int root = 0;                        // rank within the group
  int shift = 1;                       // of `shift` only: rank r gets the input of rank r − shift, modulo N
  const void* in = nullptr;            // row-major
  void* out = nullptr;                 // row-major, of collective_output_dims()
  // Counts anew from every progress mark of the rank waited for; not set: kStepDeadline from the start of the call.
  std::optional<Deadline> deadline = {};
};

// What a rank last did, readable by its peers and a supervisor at any time.
struct Progress {
  bool attached = false;
  std::int64_t step = -1;         // last mark(); -1 before the first
  std::uint64_t sequence = 0;     // collectives begun, over all its groups
  std::int64_t marked_at_ns = 0;  // monotonic_ns() of the last mark
  int waiting_for = -1;           // world rank it sleeps for; -1 if none
};

// Serves one thread at a time. Every call below that waits ends in Error(timeout) naming the laggard, Error(rank_failed) naming the
// rank that died, Error(mismatch) or Error(aborted); after any of these all groups of the same world are unusable and repeat the error.
// Ranks in arguments count within the group; rank() of errors counts within the world.
class Group {
 public:
  virtual ~Group() = default;

  virtual int rank() const = 0;
  virtual int size() const = 0;
  // World ranks by position in the group.
  virtual std::span<const int> members() const = 0;

  // Collective. A call that breaks the rules is Error(invalid_argument) or Error(unsupported) before anything is sent.
  virtual void run(const CollectiveCall& call) = 0;
  // Buffered up to a fixed size, beyond it `send` waits for `recv`; both sides must give the same number of bytes.
  virtual void send(std::span<const std::byte> bytes, int to, Deadline deadline = Deadline::after(kStepDeadline)) = 0;
  virtual void recv(std::span<std::byte> bytes, int from, Deadline deadline = Deadline::after(kStepDeadline)) = 0;
  // Collective: every rank gets every rank's blob, by rank. Sizes may differ.
  virtual std::vector<std::vector<std::byte>> exchange(std::span<const std::byte> blob,
                                                       Deadline deadline = Deadline::after(kRendezvousDeadline)) = 0;
  // Collective: disjoint ordered lists of ranks, the same on all; gives the group of the list this rank is in, null if it is in none.
  virtual std::unique_ptr<Group> split(const std::vector<std::vector<int>>& lists,
                                       Deadline deadline = Deadline::after(kRendezvousDeadline)) = 0;

  // Records that this rank has completed a step; extends what peers will wait for it. Throws what has ended the world, if anything has.
  virtual void mark(std::int64_t step) = 0;
  virtual Progress progress(int rank) const = 0;
  // Ends the waits of all ranks of the world, now and from now on. Callable from any thread.
  virtual void abort(std::string_view reason) = 0;
};

// Collective: ranks of equal color form a group, ordered by rank; a negative color is in none (null).
std::unique_ptr<Group> split_by_color(Group& group, int color, Deadline deadline = Deadline::after(kRendezvousDeadline));

// Collective: throws Error(mismatch) on every rank, naming the first rank that differs from rank 0 and what it differs in, unless all
// ranks pass equal values. `names` says what each value is; the group stays usable.
void require_agreement(Group& group, std::span<const std::uint64_t> values, std::span<const std::string> names,
                       Deadline deadline = Deadline::after(kRendezvousDeadline));

// Dims of `out`. Throws Error(invalid_argument) naming the dimension and N where a split does not divide or an axis is out of range.
Shape collective_output_dims(const CollectiveCall& call, int size);

// Checks everything about a call that one rank can see alone; throws as run() does.
void check_call(const CollectiveCall& call, int size);

// What a rank outside every group does instead of run(): copies `in` to `out` where the collective keeps the shape (all_reduce, reduce,
// broadcast, all_to_all along one axis), else Error(invalid_argument).
void pass_through(const CollectiveCall& call);

// "all_reduce(sum f32 [4,8])", for messages.
std::string to_string(const CollectiveCall& call);

}  // namespace tandem
