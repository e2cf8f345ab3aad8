// Running an engine on all its ranks. Public.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "tandem/engine.h"

namespace tandem {

struct TeamOptions {
  // The program, with arguments, that serves as a rank process: it gets one more argument and ends with serve_rank() of it. Found
  // without a search path. Empty: ranks are threads of this process.
  std::vector<std::string> rank_command;
  int threads = 0;  // per rank; 0: cores / ranks
  double rendezvous_deadline_s = 60;
  double load_deadline_s = 120;
  double step_deadline_s = 30;  // without progress; 1 s is the least
  double drain_deadline_s = 10;
  // Asked several times a second while a call waits for ranks. Once it gives true, a running step may take the drain deadline to end,
  // then the call throws Error(interrupted).
  std::function<bool()> stop;
};

// The life of a rank process; returns the status it should end with. `argument` is the last one it was started with.
int serve_rank(const std::string& argument);

class Team;

// The ranks of one engine, started. Serves one thread at a time.
class Model {
 public:
  // Returns once every rank is ready; throws Error naming the rank that failed.
  Model(const Engine& engine, const TeamOptions& options = {});
  ~Model();
  Model(Model&&) noexcept;

  // Scatters, runs, gathers. Throws Error. One that a rank reports, naming its node, leaves the model usable; after a rank has died or
  // got stuck every call repeats the error.
  RankArrays run(const RankArrays& inputs);
  RankArrays run(const Arrays& inputs);
  // Seconds of the slowest rank in the last run, without scatter and gather.
  double last_seconds() const { return last_seconds_; }
  // Runs once and returns a timeline of every rank in the Trace Event format, which Perfetto reads.
  std::string trace(const RankArrays& inputs, RankArrays* outputs = nullptr);

 private:
  Engine engine_;
  std::unique_ptr<Team> team_;
  double last_seconds_ = 0;
};

}  // namespace tandem
