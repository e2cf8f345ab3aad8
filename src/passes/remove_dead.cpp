// remove_dead: what nobody needs goes, and weights and sources with it.
#include "passes/match.h"
#include "passes/passes.h"

namespace tandem::passes {

bool remove_dead(Module& module, const PassOptions&) {
  const std::size_t weights = module.weights().size();
  const bool changed = for_each_graph(module, [](Graph& graph) { return graph.erase_dead() > 0; });
  module.erase_unused_weights();
  return changed || module.weights().size() != weights;
}

}  // namespace tandem::passes
