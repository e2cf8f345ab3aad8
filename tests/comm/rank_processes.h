// RankProcesses: ranks as forked processes of a test or benchmark, with what became of each.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "comm/group.h"
#include "comm/shm/region.h"

namespace tandem {

struct RankOutcome {
  bool finished = false;  // body returned or threw; false: killed, or did not end in time
  bool ok = false;        // body returned
  ErrorCode code = ErrorCode::internal;
  int rank = -1;       // Error::rank()
  std::string text;    // Error::what()
  double seconds = 0;  // from fork to the end of body
};

// Forks at once; call it while the process has one thread. No child outlives the object, or its parent.
class RankProcesses {
 public:
  RankProcesses(int world, const std::function<void(Group&)>& body, const ShmOptions& options = {},
                std::chrono::nanoseconds rendezvous = kRendezvousDeadline);
  // Processes that share nothing from the start: each runs life(number).
  RankProcesses(int count, const std::function<void(int)>& life);
  ~RankProcesses();
  RankProcesses(const RankProcesses&) = delete;
  RankProcesses& operator=(const RankProcesses&) = delete;

  ShmRegion& region() { return *region_; }
  void signal(int rank, int number);
  // Waits for all ranks, at most `limit`, and not for ranks that are stopped; those that have not ended by then are killed.
  std::vector<RankOutcome> wait(std::chrono::nanoseconds limit = std::chrono::seconds(60));

 private:
  void start(int count, const std::function<void(int)>& life);

  std::shared_ptr<ShmRegion> region_;  // of the first kind
  std::vector<pid_t> pids_;
  std::vector<int> pipes_;
};

// Runs body on `world` processes; throws the first rank's failure, or Error(rank_failed) for one that was killed.
void run_rank_processes(int world, const std::function<void(Group&)>& body, const ShmOptions& options = {});

}  // namespace tandem
