// The recorded cases beside the models in tests/models: inputs and outputs by case.
#pragma once

#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "core/safetensors.h"
#include "graph/graph.h"

namespace tandem::testing {

using Tensors = std::map<std::string, Tensor>;

struct Case {
  Tensors inputs, outputs;
};

struct Cases {
  // Reads caseN.input.NAME, caseN.output.NAME; with several ranks caseN.rankR.…, of which `rank` is taken.
  static Cases open(const std::filesystem::path& path, int rank = 0);
  double tolerance = 0;  // of the largest magnitude
  int ranks = 1;
  std::vector<Case> cases;
};

// Symbols as the inputs' shapes bind them; throws std::runtime_error where an expression or constraint does not fit.
SymbolValues bind(const Graph& graph, const Tensors& inputs);
// The largest difference over the largest magnitude of `expected`; infinite where NaNs or shapes differ.
double relative_error(const Tensor& got, const Tensor& expected);

}  // namespace tandem::testing
