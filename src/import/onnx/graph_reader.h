// Turns the nodes of an ONNX graph into nodes of a Graph, in the order they are needed.
#pragma once

#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "graph/builder.h"
#include "import/onnx/import.h"
#include "import/onnx/node_reader.h"

namespace tandem::onnx_import {

// Names of one graph, branch or function body. A branch sees the names around it, a function only its own.
struct Scope {
  Scope* parent = nullptr;
  const google::protobuf::RepeatedPtrField<onnx::NodeProto>* nodes = nullptr;
  const Opsets* opsets = nullptr;
  Bindings bindings;
  std::string prefix;  // of node and weight names
  int depth = 0;

  enum class State : std::uint8_t { fresh, open, done };
  std::map<std::string, Value*> values;  // null: an absent argument of a function
  std::map<std::string, const onnx::TensorProto*> initializers;
  std::set<std::string> sparse;
  std::map<std::string, int> producers;  // output name → node
  std::vector<State> states;
};

class GraphReader {
 public:
  GraphReader(Graph& graph, const ModelFile& file, const ImportOptions& options);
  // Imports the model's graph: inputs, needed nodes, outputs. The graph gets its profiles.
  void run();

 private:
  Scope make_scope(const onnx::GraphProto& graph, Scope* parent, const Opsets& opsets);
  void index_nodes(Scope& scope, const google::protobuf::RepeatedPtrField<onnx::NodeProto>& nodes);
  void add_inputs(Scope& scope);
  void place(Scope& scope);
  std::vector<bool> needed_nodes(const Scope& scope) const;
  std::vector<InputRanges> ranges_of_profiles() const;

  // The value of a name, importing whatever it takes; null for the empty name.
  Value* require(Scope& scope, const std::string& name);
  void produce(Scope& scope, int index);
  void convert(Scope& scope, const onnx::NodeProto& node);
  void convert_by_rule(Scope& scope, const onnx::NodeProto& node, std::vector<Value*> inputs);
  bool keep_as_weight(Scope& scope, const onnx::NodeProto& node);
  void import_if(Scope& scope, const onnx::NodeProto& node, Value* predicate);
  void inline_function(Scope& scope, const onnx::NodeProto& node, const onnx::FunctionProto& function, const std::vector<Value*>& inputs);
  Value* initializer(const std::string& name, const onnx::TensorProto& proto);

  Graph* graph_;
  const ModelFile* file_;
  const ImportOptions* options_;
  GraphBuilder builder_;
  TensorReader tensors_;
  std::map<std::string, const onnx::FunctionProto*> functions_;  // by domain:name:overload
  std::int64_t converted_ = 0;
};

}  // namespace tandem::onnx_import
