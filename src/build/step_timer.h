// StepTimer: times the kernels that can run a step, each once per kind of call.
#pragma once

#include <vector>

#include "build/build.h"
#include "ops/kernel.h"

namespace tandem {

struct Choice {
  const KernelDef* kernel = nullptr;
  double microseconds = 0;            // 0: by rule
  std::string algorithm;              // of those of the kernel's library; empty: it decides
  std::vector<Candidate> candidates;  // the kernels that were considered, where there was more than one
};

// What the symbols of a call are bound to before it is timed: the opt values of the profile, and the coordinates of rank 0.
SymbolValues trial_symbols(const Profile& profile, const Mesh& mesh);

class StepTimer {
 public:
  // `options` has a Measure and outlives the timer. `tf32`, `exact`: those of the plan whose steps are timed.
  StepTimer(const PlanOptions& options, bool tf32, bool exact) : options_(options), tf32_(tf32), exact_(exact) {}

  // Takes the fastest of `kernels`, which are among the candidates, with its algorithm; those that cannot be timed get a reason. Where none
  // can the choice stays as it is. They are in order: one that packs weights is taken before an earlier one only if it is 5 % faster.
  // `call` is bound, `weights` and `ranks` are as in Trial. Throws Error(interrupted) only.
  void time(const OpCall& call, const std::vector<bool>& weights, int ranks, const std::vector<const KernelDef*>& kernels, Choice& choice);

 private:
  Timing time_one(const Trial& trial);

  const PlanOptions& options_;
  bool tf32_, exact_;
  TimingCache memory_;  // where no cache is given
};

}  // namespace tandem
