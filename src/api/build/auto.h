// The choice of a mesh by cost: what `auto` means.
#pragma once

#include <string>
#include <vector>

#include "passes/pipeline.h"
#include "plan/plan.h"

namespace tandem {

// What one rank of the machine can do; the defaults are those of a server's core and its share of the memory.
struct Machine {
  double flops = 60e9;     // per second, in matrix products
  double bandwidth = 8e9;  // bytes per second, of memory
  double link = 4e9;       // bytes per second, between ranks
  double latency = 10e-6;  // seconds a collective takes at least
  double memory = 0;       // bytes a rank may use; 0: the host's memory / ranks
};

struct Cost {
  Mesh mesh;
  double seconds = 0;   // of a step at the optimal shapes
  double bytes = 0;     // weights and activations of a rank
  std::string refused;  // why the mesh cannot be had; empty if it can
};

// The cost of a plan's first program at the optimum of its first profile.
Cost estimate(const Plan& plan, const Machine& machine);

// Every mesh of `ranks` ranks over dp, cp and tp, cheapest first, then those that are refused or do not fit. `module` is not
// changed. Throws what importing and simplifying throw.
std::vector<Cost> alternatives(const Module& module, const PipelineOptions& pipeline, int ranks, const Machine& machine = {});

// The cheapest of them, told to `notice` with its rivals. Error(unsupported) with every reason if there is none.
Mesh choose_mesh(const Module& module, const PipelineOptions& pipeline, int ranks, std::string& notice);

}  // namespace tandem
