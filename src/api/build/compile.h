// The path from a module, wherever it comes from, to an engine.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "graph/graph.h"
#include "tandem/build.h"

namespace tandem {

// How the caller sees an input or output of a program that is one rank's.
struct Placement {
  Type global;
  Sharding sharding;
};

struct Draft {
  std::unique_ptr<Module> module;
  std::string name;  // for progress
  // Of a program that is one rank's already: all ranks. `shard` leaves it as it is.
  std::optional<Mesh> world;
  std::map<std::string, Placement> inputs, outputs;  // of such a program; those that are not named are each rank's own
};

// Throws Error(invalid_argument) where both `exact` and `tf32` are asked for.
void require_one_precision(const BuildOptions& options);

// Runs the passes and plans. One draft for all ranks, or one per rank. Throws Error.
Engine finish(std::vector<Draft> drafts, const BuildOptions& options);

}  // namespace tandem
