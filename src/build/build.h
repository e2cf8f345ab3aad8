// build: turns the local (sharded) program of a module into a Plan: kernels, aliases, lifetimes, weights, bindings, collectives.
#pragma once

#include <functional>
#include <map>
#include <string>
#include <vector>

#include "build/timing_cache.h"
#include "graph/graph.h"
#include "plan/plan.h"

namespace tandem {

struct KernelDef;

// One candidate to be timed.
struct Trial {
  const KernelDef& kernel;
  const OpCall& call;         // bound to the opt values of the profile, on rank 0 of the mesh
  std::vector<bool> weights;  // per operand: it is a weight, which a kernel may pack
  int ranks = 1;              // of its group; 1 for what does not communicate
  bool tf32 = false;          // PrepareArgs::tf32
  bool exact = false;         // PrepareArgs::exact
};

// The time of one run on the slowest rank, with the fastest of the kernel's algorithms. Throws Error where that cannot be found out.
using Measure = std::function<Timing(const Trial&)>;

struct PlanOptions {
  std::string device = "cpu";                          // the kind whose kernels are chosen
  std::string strategy;                                // what was asked for, recorded
  bool refittable = false;                             // what the plan says of itself
  bool exact = false;                                  // no kernel with weaker rounding or NaN rules
  bool tf32 = false;                                   // of GPUs: operands of f32 products may be rounded to TF32
  std::map<std::string, std::string> built_with = {};  // recorded
  std::vector<std::string> kernels;                    // taken wherever they can run
  Measure measure = {};                                // empty: kernels are chosen by rule
  TimingCache* cache = nullptr;                        // borrowed; null: times are remembered for this build only
  bool dependent_launch = true;                        // steps may start early
  int sm = 0;           // for GPUs of this kind (90: compute capability 9.0) texts of kernels are compiled now; 0: when they run
  std::string machine;  // what times depend on besides the kernel: CPU and threads
  std::function<void(std::size_t step, std::size_t steps)> progress = {};  // may throw to stop
};

// A program for each optimization profile of a graph, with the same weights, values and order of steps.
// Constants become frozen weights, whose data is added to the module as sources. The Plan keeps no pointer into the module.
// Throws Error(unsupported) naming the node and every reason where no kernel can run it.
Plan build_plan(Module& module, const PlanOptions& options = {});

// What a communicating node sends, as `inspect` prints it.
CollectiveUse collective_use(const Node& node, const Mesh& mesh);
bool communicates(const Node& node);
// How many of the mesh's ranks take part.
int ranks_of(const CollectiveUse& use, const Mesh& mesh);

}  // namespace tandem
