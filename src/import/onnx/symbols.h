// Extents of a model's inputs as Dims.
#pragma once

#include <map>
#include <set>
#include <string>
#include <vector>

#include "graph/graph.h"
#include "import/onnx/model_file.h"

namespace tandem::onnx_import {

class Symbols {
 public:
  // Collects the names that stand alone for an extent of some input; only expressions of those can be bound later.
  explicit Symbols(const std::vector<const onnx::ValueInfoProto*>& inputs);
  // Throws Error naming the input for types that are no tensors of known rank.
  Type type_of(const onnx::ValueInfoProto& input);

 private:
  Dim dim_of(const onnx::TensorShapeProto::Dimension& dim, const std::string& input, int index);
  Dim named(const std::string& text);
  std::set<std::string> alone_;
  std::map<std::string, Dim> by_text_;
  std::set<std::string> taken_;
};

}  // namespace tandem::onnx_import
