// Team: the ranks of an engine used as one: scatters inputs by their declared sharding, starts every rank, gathers outputs.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "team/rank_link.h"

namespace tandem {

struct TeamSettings {
  bool processes = false;  // else ranks are threads of this process
  int threads = 1;         // per rank
  std::chrono::nanoseconds load_deadline = kLoadDeadline;
  std::chrono::nanoseconds step_deadline = kStepDeadline;
  std::chrono::nanoseconds drain_deadline = kDrainDeadline;
};

// One tensor for all ranks, or one per rank for values that are each rank's own.
using TeamTensors = std::map<std::string, std::vector<Tensor>>;

struct TeamTimes {
  std::vector<std::int64_t> rank_ns;           // per rank: its run
  std::vector<std::vector<TraceEvent>> trace;  // per rank, if asked for
};

// Serves one thread at a time. After a rank has failed every call repeats the error.
class Team {
 public:
  // One plan for all ranks, or one per rank (files sharded by other tools). Waits until every rank has loaded and joined.
  // Throws what a rank throws, naming it; Error(timeout) naming ranks that did not come.
  Team(std::vector<std::shared_ptr<const Plan>> plans, const WeightSource& weights, TeamSettings settings);
  // Ends the ranks; waits at most the drain deadline.
  ~Team();
  Team(const Team&) = delete;

  int size() const { return static_cast<int>(links_.size()); }
  // The process of a rank, or -1 if it has none of its own.
  int process(int rank) const { return links_.at(static_cast<std::size_t>(rank))->process(); }
  const Plan& plan(int rank = 0) const { return *plans_[plans_.size() == 1 ? 0 : static_cast<std::size_t>(rank)]; }
  // Runs the first program. An input that is varying takes one tensor per rank; all others take one. Throws Error(invalid_argument)
  // naming an input that is missing, unknown, of another dtype or shape, with nothing run.
  TeamTensors run(const TeamTensors& inputs, bool trace = false, TeamTimes* times = nullptr);

 private:
  const Program& program(int rank) const { return plan(rank).programs.at(0); }
  SymbolValues check_inputs(const TeamTensors& inputs, int rank) const;
  RankRequest place(int rank, const TeamTensors& inputs, const SymbolValues& symbols);
  std::vector<RankReply> wait_for_all(std::chrono::nanoseconds limit, bool counted_from_progress);
  [[noreturn]] void fail_all(const std::vector<std::optional<RankReply>>& replies, const std::vector<int>& silent, std::chrono::nanoseconds limit);
  void collect(int rank, const RankRequest& request, const SymbolValues& symbols, TeamTensors& outputs) const;

  std::vector<std::shared_ptr<const Plan>> plans_;
  TeamSettings settings_;
  std::shared_ptr<ShmRegion> region_;
  std::vector<std::unique_ptr<RankLink>> links_;
  std::optional<Error> broken_;
};

}  // namespace tandem
