// What importers see to while they add nodes, done for a finished program: that its extents can be known and agree.
#pragma once

#include "graph/graph.h"

namespace tandem {

// Refuses symbols that no input's shape gives by themselves, and coordinates of axes the mesh lacks; names the node.
void check_symbols(const Graph& graph, const std::vector<Type>& inputs, const Mesh& mesh);

// Inference takes extents that may be equal for equal: those that are not provably so become constraints of the graph, which are
// checked when shapes are bound. Throws Error(invalid_model) naming the node where they can never be.
void require_equal_extents(Graph& graph);

}  // namespace tandem
