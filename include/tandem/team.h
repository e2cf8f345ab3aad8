// Running an engine on all its ranks. Public.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "tandem/engine.h"
#include "tandem/profile.h"

namespace tandem {

struct TeamOptions {
  // The program, with arguments, that serves as a rank process: it gets one more argument and ends with serve_rank() of it. Found
  // without a search path. Empty: ranks are threads of this process.
  std::vector<std::string> rank_command;
  int threads = 0;  // per rank; 0: cores / ranks
  bool dependent_launch =
      true;  // on GPUs kernels may start before their predecessors end, as far as the engine was built for it; same results
  std::optional<std::size_t> weight_budget_bytes = {};  // of each rank, as in ContextOptions
  double rendezvous_deadline_s = 60;
  double load_deadline_s = 120;
  double step_deadline_s = 30;  // without progress; 1 s is the least
  double drain_deadline_s = 10;
  // Asked several times a second while a call waits for ranks. Once it gives true, a running step may take the stop deadline to end
  // (negative: the drain deadline), then the ranks are told to give up. The call throws Error(interrupted); the model stays usable unless
  // a rank did not give up.
  std::function<bool()> stop;
  double stop_deadline_s = -1;
  // Told how far the ranks' loading is, several times a second and at its end, by the constructor. What it throws ends the ranks.
  ProgressCallback progress = {};
};

// Asked before the ranks start for the memory of each output: `rank` is −1, or the rank where each has its own. It must hold a dense array
// of that type and shape, and is kept as long as a rank may write to it.
using OutputMemory = std::function<std::shared_ptr<std::byte>(const std::string& name, DType dtype, const Shape& shape, int rank)>;

// The life of a rank process; returns the status it should end with. `argument` is the last one it was started with.
int serve_rank(const std::string& argument);

class Team;
struct TeamTimes;

// The ranks of one engine, started. Serves one thread at a time; a second concurrent call is Error(invalid_argument).
class Model {
 public:
  // Returns once every rank is ready; throws Error naming the rank that failed.
  Model(const Engine& engine, const TeamOptions& options = {});
  ~Model();
  Model(Model&&) noexcept;

  // Scatters, runs, gathers: the program of the optimization profile that fits the inputs' shapes, of several the one whose typical shapes
  // are nearest. Throws Error. One that a rank reports, naming its node, leaves the model usable; after a rank has died or got stuck every
  // call repeats the error. Outputs lie in what `memory` gives, else in fresh memory. Where ranks are threads and a rank's part of an array
  // lies there in one piece, the ranks read and write it in place.
  RankArrays run(const RankArrays& inputs, const OutputMemory& memory = {});
  RankArrays run(const Arrays& inputs);
  // Seconds of the slowest rank in the last run, without scatter and gather.
  double last_seconds() const { return last_seconds_; }
  // Arrays, or parts of them, that the last run copied between the caller's memory and that of the ranks.
  int last_copies() const { return last_copies_; }
  // Sentences about the ranks that the user should read, of the last run: that their GPUs communicate through the host, and why. Engine has
  // those about the model.
  const std::vector<std::string>& notices() const { return notices_; }
  // Runs once and returns the steps of each rank, with their times.
  std::vector<std::vector<StepTime>> profile(const RankArrays& inputs, RankArrays* outputs = nullptr);
  // Runs once and returns a timeline of every rank in the Trace Event format, which Perfetto reads.
  std::string trace(const RankArrays& inputs, RankArrays* outputs = nullptr);

 private:
  void learn(const TeamTimes& times);

  Engine engine_;
  std::unique_ptr<Team> team_;
  double last_seconds_ = 0;
  int last_copies_ = 0;
  std::vector<std::string> notices_;
};

}  // namespace tandem
