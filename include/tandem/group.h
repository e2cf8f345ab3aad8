// Group: the ranks that communicate, seen from one of them, and what each collective means. Public; belongs to comm.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "tandem/collective.h"
#include "tandem/deadline.h"
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
  // Set: `in` and `out` are memory of the group's GPU, run() gives the work to this stream (a cudaStream_t) and returns, and what fails
  // later is told where the stream is waited for. Null: memory of the host, and all is done when run() returns.
  void* stream = nullptr;
  const void* in = nullptr;  // row-major
  void* out = nullptr;       // row-major, of collective_output_dims()
  // Counts anew from every progress mark of the rank waited for; not set: the group's step deadline from the start of the call.
  std::optional<Deadline> deadline = {};
};

// Dims of `out`. Throws Error(invalid_argument) naming the dimension and N where a split does not divide or an axis is out of range.
Shape collective_output_dims(const CollectiveCall& call, int size);

// What a rank last did, readable by its peers and a supervisor at any time.
struct Progress {
  bool attached = false;
  std::int64_t step = -1;         // last mark(); -1 before the first
  std::uint64_t sequence = 0;     // collectives begun, over all its groups
  std::int64_t marked_at_ns = 0;  // monotonic_ns() of the last mark
  int waiting_for = -1;           // world rank it sleeps for; -1 if none
  std::int64_t waited_ns = 0;     // for other ranks, over all its groups
};

struct GroupOptions {
  // Tells runs apart whose ranks meet at one address: a rank of another run is not seen. from_env() takes it from the launcher.
  std::string run_id;
  double rendezvous_deadline_s = 60;  // for ranks to come, and for split() and exchange()
  double step_deadline_s = 30;        // without progress of a rank that others wait for
  // Asked several times a second while a call of this group waits, or of a group made from it, by the thread that waits. Once it gives
  // true the call throws Error(interrupted), and the other ranks get Error(aborted) naming this one.
  std::function<bool()> stop;
};

// Serves one thread at a time. Every call below that waits ends in Error(timeout) naming the laggard, Error(rank_failed) naming the
// rank that died, Error(mismatch) or Error(aborted); after any of these all groups of the same world are unusable and repeat the error.
// Ranks in arguments count within the group; rank() of errors counts within the world. Deadlines that are not given are the group's.
class Group {
 public:
  // Ranks that are processes of one user on one host, each started by whom it may be. Rank 0 waits at `address`, "HOST:PORT"; no TCP port
  // is used, so that one of a launcher at this address is not in the way. Returns once all ranks have come. The same ranks may meet at
  // one address again and again. Throws Error(timeout) naming the ranks that did not come, Error(mismatch) where ranks disagree on the
  // number of ranks or two are the same one, Error(unsupported) where the address is another host's.
  static std::unique_ptr<Group> join(int rank, int size, const std::string& address, const GroupOptions& options = {});
  // join() with what a launcher says in the environment: RANK and WORLD_SIZE (torchrun), OMPI_COMM_WORLD_* (mpirun), PMI_* (MPICH),
  // SLURM_* (srun), the first of these that is there; MASTER_ADDR and MASTER_PORT where set, else 127.0.0.1:29500. Throws as join(), and
  // Error(invalid_argument) naming a variable that is missing or no number, Error(unsupported) for ranks on several hosts.
  static std::unique_ptr<Group> from_env(const GroupOptions& options = {});
  // Ranks that are threads of this process: the groups by rank, each for a thread of its own.
  static std::vector<std::unique_ptr<Group>> in_process(int size, const GroupOptions& options = {});

  virtual ~Group() = default;

  virtual int rank() const = 0;
  virtual int size() const = 0;
  // What carries collectives: "shm" between processes and threads of a host; "nccl" or "peer" between GPUs, for calls with a stream.
  virtual std::string_view backend() const = 0;
  // World ranks by position in the group.
  virtual std::span<const int> members() const = 0;

  // Collective. A call that breaks the rules is Error(invalid_argument) or Error(unsupported) before anything is sent.
  virtual void run(const CollectiveCall& call) = 0;
  // Buffered up to a fixed size, beyond it `send` waits for `recv`; both sides must give the same number of bytes.
  virtual void send(std::span<const std::byte> bytes, int to, std::optional<Deadline> deadline = {}) = 0;
  virtual void recv(std::span<std::byte> bytes, int from, std::optional<Deadline> deadline = {}) = 0;
  // Collective: every rank gets every rank's blob, by rank. Sizes may differ.
  virtual std::vector<std::vector<std::byte>> exchange(std::span<const std::byte> blob, std::optional<Deadline> deadline = {}) = 0;
  // Collective: disjoint ordered lists of ranks, the same on all; gives the group of the list this rank is in, null if it is in none.
  // The new group may outlive this one.
  virtual std::unique_ptr<Group> split(const std::vector<std::vector<int>>& lists, std::optional<Deadline> deadline = {}) = 0;

  // Records that this rank has completed a step; extends what peers will wait for it. Throws what has ended the world, if anything has.
  virtual void mark(std::int64_t step) = 0;
  // Throws what has ended the world, if anything has, among that a rank whose process has ended without leaving. Never waits.
  virtual void throw_if_failed() = 0;
  virtual Progress progress(int rank) const = 0;
  // Ends the waits of all ranks of the world, now and from now on. Callable from any thread.
  virtual void abort(std::string_view reason) = 0;
};

}  // namespace tandem
