// Runs a program with the plain evaluators of its ops: slow, and independent of passes and kernels.
#pragma once

#include <map>
#include <string>

#include "graph/graph.h"

namespace tandem {

using NamedTensors = std::map<std::string, Tensor>;

// Outputs by name. `inputs` holds one tensor per graph input, `symbols` the values of all its symbols. Throws Error(unsupported) naming
// a node that has no evaluator; regions and collectives of several ranks have none.
NamedTensors evaluate(const Graph& graph, const NamedTensors& inputs, const SymbolValues& symbols);

}  // namespace tandem
