// Runs a program with the plain evaluators of its ops, for comparing what a pass made with what it was given.
#pragma once

#include <map>
#include <string>

#include "graph/graph.h"

namespace tandem::testing {

using Tensors = std::map<std::string, Tensor>;

// Outputs by name. `inputs` holds one tensor per graph input; programs with regions or collectives are refused.
Tensors evaluate(const Graph& graph, const Tensors& inputs, const SymbolValues& symbols);
// Inputs and sources from a fixed sequence: floats in −1 … 1, integers 0 … 3, booleans true three times of four.
Tensors random_inputs(const Graph& graph, const SymbolValues& symbols);
void fill_sources(Module& module);
// The optimum of the first profile, 3 for symbols without one.
SymbolValues symbols_of(const Graph& graph);

}  // namespace tandem::testing
