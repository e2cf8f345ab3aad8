// RankLink: one rank of a team as its leader sees it, be it a thread of this process or a process of its own.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "comm/shm/region.h"
#include "runtime/context.h"
#include "runtime/symbols.h"

namespace tandem {

struct TraceEvent {
  int step = 0;
  std::int64_t begin_ns = 0, end_ns = 0;
};

// What one rank does in one step of the team. Addresses are those of the leader's process; outputs lie in the link's block, inputs too
// unless the link is `direct`.
struct RankRequest {
  SymbolValues symbols;
  std::vector<const std::byte*> inputs;
  std::vector<std::byte*> outputs;
  bool trace = false;
};

struct RankReply {
  std::optional<Error> error;
  std::int64_t nanoseconds = 0;  // of Context::run
  std::vector<TraceEvent> trace;
};

// What a rank needs to start.
struct RankStart {
  int rank = 0;
  std::shared_ptr<const Plan> plan;
  WeightSource weights;
  ContextOptions options;
  std::shared_ptr<ShmRegion> region;
};

// Used by the leader's thread only.
class RankLink {
 public:
  virtual ~RankLink() = default;
  // True if the rank sees the leader's memory, so that whole inputs need no copy.
  virtual bool direct() const = 0;
  // Its process, or -1 if it has none of its own.
  virtual int process() const { return -1; }
  // At least `bytes` that leader and rank both see; contents are lost when it grows.
  virtual std::byte* block(std::size_t bytes) = 0;
  virtual void send(const RankRequest& request) = 0;
  // The answer to the last request (or to the start, before the first), if it came within `limit`. A rank that ended gives an error.
  virtual std::optional<RankReply> receive(std::chrono::nanoseconds limit) = 0;
  // Asks the rank to end, waits at most `deadline`, then kills or lets go. No more calls after it.
  virtual void close(Deadline deadline) = 0;
};

std::unique_ptr<RankLink> start_thread_rank(RankStart start);
// Forks: call it before this process has other threads that hold locks the child needs.
std::unique_ptr<RankLink> start_process_rank(RankStart start);

// The rank's side: loads the engine, joins the world, and serves requests.
class RankWorker {
 public:
  // Throws what loading or the rendezvous throws.
  explicit RankWorker(const RankStart& start);
  // Never throws: errors go into the reply, and end the world so that no peer waits.
  RankReply serve(const RankRequest& request);

 private:
  int rank_;
  std::shared_ptr<ShmRegion> region_;
  std::unique_ptr<Group> group_;
  std::unique_ptr<Context> context_;
};

}  // namespace tandem
