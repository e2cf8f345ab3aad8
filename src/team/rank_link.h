// RankLink: one rank of a team as its leader sees it, be it a thread of this process or a process of its own.
#pragma once

#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "comm/shm/region.h"
#include "core/tensor.h"
#include "runtime/context.h"
#include "runtime/symbols.h"
#include "team/spawner.h"

namespace tandem {

struct TraceEvent {
  int step = 0;
  std::int64_t begin_ns = 0, end_ns = 0, waited_ns = 0;
};

// What one rank does in one step of the team. Addresses are those of the leader's process; inputs and outputs lie in the link's block,
// unless the link is `direct`.
struct RankRequest {
  int profile = 0;  // whose program runs
  SymbolValues symbols;
  std::vector<const std::byte*> inputs;
  std::vector<std::byte*> outputs;
  bool trace = false;
  std::vector<Tensor> held;                              // keep what lies outside the block alive as long as a thread that is stuck
  std::vector<std::shared_ptr<std::byte>> held_outputs;  // may use it
};

struct RankReply {
  std::optional<Error> error;
  bool ended = false;            // the rank is no more; `error` says how it ended
  std::int64_t nanoseconds = 0;  // of RankContext::run
  int copies = 0;                // outputs that the run copied, of threads
  std::string through_host;      // RankContext has it
  std::vector<TraceEvent> trace;
  SymbolValues measured;  // extents that the run found
};

// What a rank needs to start. A thread takes plan and weights, a process the engine file.
struct RankStart {
  int rank = 0;
  std::shared_ptr<const Plan> plan;
  WeightSource weights;
  int engine_file = -1;                      // a descriptor, borrowed until the link is made
  int plan_text = -1;                        // the same, of a plan that goes before that of the file; -1: the file's
  std::optional<std::size_t> weight_budget;  // RankEngine::load has it
  RankContextOptions options;
  std::shared_ptr<ShmRegion> region;
};

// Used by the leader's thread only. Every send, start and rejoin is answered by one receive.
class RankLink {
 public:
  virtual ~RankLink() = default;
  // True if the rank sees the leader's memory, so that whole inputs need no copy.
  virtual bool direct() const = 0;
  // Its process, or -1 if it has none of its own.
  virtual int process() const { return -1; }
  // At least `bytes` that leader and rank both see; contents are lost when it grows.
  virtual std::byte* block(std::size_t bytes) = 0;
  virtual void send(RankRequest request) = 0;
  // Leaves the world it is in, which has failed, and joins a new one.
  virtual void rejoin(std::shared_ptr<ShmRegion> region) = 0;
  // The answer, if it came within `limit`. A rank that ended gives an error.
  virtual std::optional<RankReply> receive(std::chrono::nanoseconds limit) = 0;
  // Asks the rank to end, waits at most `deadline`, then kills or lets go. Nothing but the destructor may follow.
  virtual void close(Deadline deadline) = 0;
};

std::unique_ptr<RankLink> start_thread_rank(RankStart start);
// `spawner` outlives the link.
std::unique_ptr<RankLink> start_process_rank(const RankStart& start, Spawner& spawner);
// The life of a rank process, from its start to its end. `socket` is the number that the spawner put behind the command; gives the
// status with which the process should end. Never throws.
int serve_rank_process(int socket);

// The rank's side: joins the world and serves requests.
class RankWorker {
 public:
  // Throws what the rendezvous throws.
  RankWorker(std::shared_ptr<const RankEngine> engine, const RankContextOptions& options, std::shared_ptr<ShmRegion> region);
  // Never throw: errors go into the reply, and end the world so that no peer waits.
  RankReply serve(const RankRequest& request);
  RankReply rejoin(std::shared_ptr<ShmRegion> region);

 private:
  void join(std::shared_ptr<ShmRegion> region);
  RankReply guarded(const std::function<void(RankReply&)>& work);

  int rank_;
  std::chrono::nanoseconds rendezvous_;
  std::shared_ptr<ShmRegion> region_;
  std::unique_ptr<Group> group_;
  std::unique_ptr<RankContext> context_;
};

// The exception being handled, as the error of `rank`.
Error current_error(int rank);

}  // namespace tandem
