// The model as its file has it, run by plain loops: a reference that no pass and no kernel has touched.
#pragma once

#include "graph/graph.h"
#include "tandem/build.h"

namespace tandem {

// Ranges of the dimensions of inputs, from BuildOptions::shapes.
std::map<std::string, std::vector<SymbolRange>> parse_shapes(const std::map<std::string, std::string>& shapes);

// `inputs` as Engine::random_inputs() gives them. Slow. Throws Error(unsupported) naming a node that only a kernel can run.
Arrays run_plainly(const std::string& path, const BuildOptions& options, const Arrays& inputs);

}  // namespace tandem
