// Weights for a team straight from a module's sources.
#pragma once

#include <memory>

#include "graph/graph.h"
#include "runtime/rank_engine.h"

namespace tandem {

inline WeightSource weights_of(const std::shared_ptr<const Module>& module, const Mesh& mesh) {
  return [module, mesh](const PlanWeight& weight, int rank) {
    return run_recipe(
        *weight.recipe, [&](const std::string& name) { return module->source(name); }, coordinates(mesh, rank));
  };
}

}  // namespace tandem
