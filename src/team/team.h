// Team: the ranks of an engine used as one: scatters inputs by their declared sharding, starts every rank, gathers outputs.
#pragma once

#include <atomic>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "team/rank_link.h"

namespace tandem {

struct TeamSettings {
  // The program, with arguments, that serves as a rank process (serve_rank_process); empty: ranks are threads of this process.
  std::vector<std::string> rank_command;
  int threads = 1;                           // per rank
  bool dependent_launch = true;              // RankContextOptions has it
  std::optional<std::size_t> weight_budget;  // of each rank, RankEngine::load has it
  std::filesystem::path engine_file;         // holds the one plan and all its weights; empty: rank processes get a copy in memory
  bool own_plan = false;                     // the file has another plan: rank processes take its weights only
  std::chrono::nanoseconds rendezvous_deadline = kRendezvousDeadline;
  std::chrono::nanoseconds load_deadline = kLoadDeadline;
  std::chrono::nanoseconds step_deadline = kStepDeadline;
  std::chrono::nanoseconds drain_deadline = kDrainDeadline;
  // Asked several times a second while a call waits; once true, what runs may take the stop deadline to end, then the ranks are told to
  // give up. The call throws Error(interrupted); the team stays usable unless a rank does not give up.
  std::function<bool()> stop;
  std::chrono::nanoseconds stop_deadline = kDrainDeadline;
  // Told by the constructor, while ranks load, how much of that all have done, 0 … 1, and 1 at the end. May throw, which ends the team.
  std::function<void(double done)> progress = {};
};

// One tensor for all ranks, or one per rank for values that are each rank's own.
using TeamTensors = std::map<std::string, std::vector<Tensor>>;

struct TeamTimes {
  std::vector<std::int64_t> rank_ns;           // per rank: its run
  std::vector<std::vector<TraceEvent>> trace;  // per rank, if asked for
  std::size_t profile = 0;                     // whose program ran
  int copies = 0;                              // of whole arrays or blocks, between the caller's memory and that of the ranks
  std::string through_host;                    // why collectives of GPUs go that way, as rank 0 has it; empty where they do not
};

// Asked before the ranks start for the memory of an output: all of it, or that of one rank (else −1) where each has its own. It is kept
// as long as a rank may write to it. Of extents that are measured in a run the shape has the most they can be; what the run gives lies at
// the start, dense.
using OutputMemory = std::function<std::shared_ptr<std::byte>(const std::string& name, DType dtype, const Shape& shape, int rank)>;

// Serves one thread at a time; a second concurrent call is Error(invalid_argument). An error that a rank reports ends the call and leaves
// the team usable. Once a rank has died or made no progress for the step deadline, the team is closed for good: its processes are ended and
// every call repeats the error.
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
  // Runs the program of the optimization profile that fits the inputs' shapes (fitting_profile). An input that is varying takes one tensor
  // per rank; all others take one. Throws Error(invalid_argument) naming an input that is missing, unknown, of another dtype or shape, with
  // nothing run. Ranks that see this process's memory read and write where the caller's arrays lie if their block is in one piece there.
  // `memory` empty: fresh memory.
  TeamTensors run(const TeamTensors& inputs, bool trace = false, TeamTimes* times = nullptr, const OutputMemory& memory = {});

 private:
  using Replies = std::vector<std::optional<RankReply>>;
  class Turn;
  struct OutputArray {
    DType dtype = DType::f32;
    Shape shape;
    std::shared_ptr<std::byte> memory;
  };
  using OutputArrays = std::map<std::string, std::vector<OutputArray>>;
  struct Failure {
    Error error;
    bool fatal = false;  // a rank is gone or stuck
  };

  // team.cpp
  const Program& program(int rank) const { return plan(rank).programs.at(0); }  // programs of further profiles have its inputs and outputs
  void start(const WeightSource& weights);
  void regroup();
  SymbolValues check_inputs(const TeamTensors& inputs, int rank) const;
  std::size_t fitting_profile(const std::vector<SymbolValues>& symbols) const;
  RankRequest place(int rank, const TeamTensors& inputs, const OutputArrays& outputs, const SymbolValues& symbols);
  OutputArrays make_outputs(const std::vector<SymbolValues>& symbols, const OutputMemory& memory) const;
  void settle_outputs(const std::vector<RankReply>& replies, std::vector<SymbolValues>& symbols, OutputArrays& outputs) const;
  void collect(int rank, const RankRequest& request, const SymbolValues& symbols, const OutputArrays& outputs);

  // team_wait.cpp
  std::vector<RankReply> wait_for_all(std::chrono::nanoseconds limit, bool counted_from_progress);
  bool receive_some(Replies& replies);
  void tell_progress(const Replies& replies) const;
  void close_links(std::chrono::nanoseconds patience);
  std::vector<int> late_ranks(const Replies& replies, Deadline start, bool counted_from_progress) const;
  Failure judge(const Replies& replies, const std::vector<int>& late, std::chrono::nanoseconds limit) const;
  std::string whereabouts(int rank, const Replies& replies) const;
  [[noreturn]] void fail_all(Replies& replies, const std::vector<int>& late, std::chrono::nanoseconds limit);
  [[noreturn]] void end_for_good(const Error& error);

  std::vector<std::shared_ptr<const Plan>> plans_;
  TeamSettings settings_;
  std::shared_ptr<ShmRegion> region_;
  std::unique_ptr<Spawner> spawner_;  // outlives the processes
  std::vector<std::unique_ptr<RankLink>> links_;
  std::atomic<bool> busy_{false};
  int copies_ = 0;        // of the present run
  bool running_ = false;  // a step, not a start
  bool regroup_ = false;  // the world ended with an error, the ranks live
  std::optional<Error> broken_;
};

}  // namespace tandem
