// GraphBuilder: adds nodes while following the contents of small integer values as Dims, so that shape arithmetic
// disappears. Importers and simplify share it.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "graph/graph.h"

namespace tandem {

struct ForeignGraph;

// A node of another format, as plain data. Absent inputs are null.
using ForeignAttribute = std::variant<std::int64_t, double, std::string, std::vector<std::int64_t>, std::vector<double>,
                                      std::vector<std::string>, Tensor, std::shared_ptr<ForeignGraph>>;
struct ForeignNode {
  std::string op_type;
  std::string domain;
  int opset = 1;
  std::string name;
  std::map<std::string, ForeignAttribute> attributes;
  std::vector<Value*> inputs;
  std::vector<std::string> outputs;  // names; empty: not wanted
  int world_size = 1;                // of files already sharded by other tools

  Value* input(std::size_t i) const { return i < inputs.size() ? inputs[i] : nullptr; }
  Value* required(std::size_t i) const;  // throws Error(invalid_model) if absent
  bool has(const std::string& name) const { return attributes.contains(name); }
  // Each throws Error(invalid_model) where the attribute has another type; `otherwise` where it is absent.
  std::int64_t integer(const std::string& name, std::int64_t otherwise) const;
  double real(const std::string& name, double otherwise) const;
  std::string text(const std::string& name, const std::string& otherwise) const;
  std::vector<std::int64_t> integers(const std::string& name, std::vector<std::int64_t> otherwise) const;
};

class GraphBuilder {
 public:
  explicit GraphBuilder(Graph& graph) : graph_(&graph) {}
  Graph& graph() const { return *graph_; }
  Module& module() const { return graph_->module(); }

  // Names given to what follows, for messages: the foreign node's name.
  void set_context(std::string node_name) { context_ = std::move(node_name); }
  void set_before(Node* before) { before_ = before; }

  // Adds `op` and returns its only result. Constant-folds where all operands are small constants.
  Value* add(std::string_view op, std::vector<Value*> operands, const NamedAttributes& attributes = {});
  std::vector<Value*> add_all(std::string_view op, std::vector<Value*> operands, const NamedAttributes& attributes = {});
  // A Constant node, or a frozen weight if it is large.
  Value* constant(Tensor value);
  Value* scalar(DType dtype, double value);
  // An i64 value of these contents: a Constant if they are numbers, else DimValue.
  Value* dim_value(const DimContent& contents, const Shape& shape, DType dtype = DType::i64);

  // Known integer contents (constants included), if any.
  std::optional<DimContent> dims_of(const Value* value);
  // The same, or Error(unsupported): "shape depends on data", naming `what`.
  DimContent require_dims(const Value* value, std::string_view what);
  std::vector<std::int64_t> require_ints(const Value* value, std::string_view what);
  std::optional<Tensor> constant_of(const Value* value) const { return tandem::constant_of(value); }

  // Two extents that must agree: equal ones pass, provably different ones are Error(invalid_model), others become a
  // constraint of the graph.
  void require_equal(const Dim& a, const Dim& b);

 private:
  void remember_folded(const std::vector<Value*>& operands);

  Graph* graph_;
  Node* before_ = nullptr;
  std::string context_;
  std::map<const Value*, std::optional<DimContent>> contents_;
};

}  // namespace tandem
