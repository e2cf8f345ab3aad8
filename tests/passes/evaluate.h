// Inputs for running programs with the plain evaluators, for comparing what a pass made with what it was given.
#pragma once

#include "graph/evaluate.h"

namespace tandem::testing {

using Tensors = NamedTensors;
using tandem::evaluate;
// Inputs and sources from a fixed sequence: floats in −1 … 1, integers 0 … 3, booleans true three times of four.
Tensors random_inputs(const Graph& graph, const SymbolValues& symbols);
void fill_sources(Module& module);
// The optimum of the first profile, 3 for symbols without one.
SymbolValues symbols_of(const Graph& graph);

}  // namespace tandem::testing
