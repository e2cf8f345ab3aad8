// Where the time of a run goes, step by step. Public.
#pragma once

#include <cstddef>
#include <functional>
#include <string>
#include <string_view>

namespace tandem {

struct StepTime {
  std::size_t step = 0;  // its number in the program of its rank
  std::string node;      // in the model; a fused step has the name of one of its nodes
  std::string op, kernel;
  bool communicates = false;  // a collective, or attention over several ranks
  double begin = 0;           // seconds since the first step began
  double seconds = 0;         // on a GPU by its own clock
  // Of these: for other ranks. On GPUs, which wait inside of kernels, a Model tells it, of all-reduce, reduce-scatter, all-gather and
  // all-to-all: what a rank takes longer than the one that came last; else 0.
  double waiting = 0;

  // "wait" where most of the time is waiting, else "communication" or "compute".
  std::string_view kind() const { return !communicates ? "compute" : waiting > seconds / 2 ? "wait" : "communication"; }
};

// Called once per step, in order, when all steps of a run are done.
using StepProfiler = std::function<void(const StepTime&)>;

}  // namespace tandem
