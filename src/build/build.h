// build: turns the local (sharded) program of a module into a Plan: kernels, aliases, lifetimes, weights, bindings, collectives.
#pragma once

#include <string>

#include "graph/graph.h"
#include "plan/plan.h"

namespace tandem {

struct PlanOptions {
  std::string strategy;  // what was asked for, recorded
  bool refittable = false;
};

// Constants become frozen weights, whose data is added to the module as sources. The Plan keeps no pointer into the module.
// Throws Error(unsupported) naming the node and every reason where no kernel can run it.
Plan build_plan(Module& module, const PlanOptions& options = {});

// What a communicating node sends, as `inspect` prints it.
CollectiveUse collective_use(const Node& node, const Mesh& mesh);
bool communicates(const Node& node);

}  // namespace tandem
