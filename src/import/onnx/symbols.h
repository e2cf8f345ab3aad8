// Extents of a model's inputs as Dims, and the profile of their symbols.
#pragma once

#include <map>
#include <set>
#include <string>
#include <vector>

#include "graph/graph.h"
#include "import/onnx/import.h"
#include "import/onnx/model_file.h"

namespace tandem::onnx_import {

class Symbols {
 public:
  // Collects the names that stand alone for an extent of some input; only expressions of those can be bound later.
  explicit Symbols(const std::vector<const onnx::ValueInfoProto*>& inputs);
  // Throws Error naming the input for types that are no tensors of known rank.
  Type type_of(const onnx::ValueInfoProto& input);
  // Ranges of all symbols the types hold: those of `options`, defaults elsewhere.
  Profile profile(const std::vector<std::pair<std::string, Type>>& inputs, const ImportOptions& options) const;

 private:
  Dim dim_of(const onnx::TensorShapeProto::Dimension& dim, const std::string& input, int index);
  Dim named(const std::string& text);
  std::set<std::string> alone_;
  std::map<std::string, Dim> by_text_;
  std::set<std::string> taken_;
};

// Adjusts ranges nobody gave: symbols tied to others by a constraint follow them, and maxima drop until every constraint that
// the minima satisfy holds with each symbol alone at its maximum.
void settle_defaults(Graph& graph, const ImportOptions& options);

}  // namespace tandem::onnx_import
