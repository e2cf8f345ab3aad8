// Running an engine on all its ranks. Public.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "tandem/engine.h"

namespace tandem {

struct TeamOptions {
  bool processes = false;      // one process per rank, forked from this one; else threads of this process
  int threads = 0;             // per rank; 0: cores / ranks
  double step_deadline_s = 30;
};

class Team;

// The ranks of one engine, started. Serves one thread at a time.
class Model {
 public:
  // Returns once every rank is ready; throws Error naming the rank that failed.
  Model(const Engine& engine, const TeamOptions& options = {});
  ~Model();
  Model(Model&&) noexcept;

  // Scatters, runs, gathers. Throws Error; after a rank has failed every call repeats the error.
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
