// What a Network holds.
#pragma once

#include <map>
#include <memory>
#include <set>
#include <string>

#include "api/build/compile.h"
#include "graph/graph.h"
#include "ops/ops.h"

namespace tandem {

struct NetworkState {
  explicit NetworkState(std::unique_ptr<Module> made) : owned(std::move(made)) {}
  std::unique_ptr<Module> owned;  // with one program
  Module& module = *owned;
  Graph& graph = owned->main();
  bool for_mesh = false;                             // the program of one rank of module.mesh
  std::map<std::string, Placement> inputs, outputs;  // those that are placed
  std::set<std::string> ranged;                      // symbols whose range was given
};

}  // namespace tandem
