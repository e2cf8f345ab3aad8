// Module, Graph, Node, Value: the program. SSA, strongly typed; nodes are kept in topological order.
#pragma once

#include <list>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "graph/mesh.h"
#include "graph/op_def.h"
#include "graph/sharding.h"
#include "graph/weight.h"

namespace tandem {

class Graph;
class Module;
class Node;

struct Use {
  Node* node;
  int operand;
  bool operator==(const Use&) const = default;
};

// Owned by its graph (inputs, weights) or its node (results); addresses are stable.
class Value {
 public:
  const std::string& name() const { return name_; }  // unique in the graph
  Type type;
  Sharding sharding;
  Node* producer() const { return producer_; }  // null for inputs and weights
  int index() const { return index_; }          // among the producer's results, or among the inputs
  const Weight* weight() const { return weight_; }
  bool is_input() const { return !producer_ && !weight_; }
  const std::vector<Use>& uses() const { return uses_; }
  Graph& graph() const { return *graph_; }

 private:
  friend class Graph;
  friend class Node;
  std::string name_;
  Graph* graph_ = nullptr;
  Node* producer_ = nullptr;
  int index_ = 0;
  const Weight* weight_ = nullptr;
  std::vector<Use> uses_;
};

class Node {
 public:
  const OpDef& op() const { return *op_; }
  bool is(std::string_view op_name) const { return op_->name == op_name; }
  const std::string& name() const { return name_; }  // from the imported model, for messages; may repeat or be empty
  std::string label() const;                         // MatMul "encoder/q", for errors
  Attributes attributes;
  const std::vector<Value*>& operands() const { return operands_; }  // null: absent
  Value* operand(std::size_t i) const { return i < operands_.size() ? operands_[i] : nullptr; }
  const std::vector<std::unique_ptr<Value>>& results() const { return results_; }
  Value* result(std::size_t i = 0) const { return results_.at(i).get(); }
  const std::vector<std::unique_ptr<Graph>>& regions() const { return regions_; }
  Graph& add_region();
  void set_operand(std::size_t i, Value* value);
  void resize_operands(std::size_t count);  // new ones are absent
  Graph& graph() const { return *graph_; }
  OpCall call() const;
  // Why this node is here, for `inspect`; empty for imported ones.
  std::string note;

 private:
  friend class Graph;
  const OpDef* op_ = nullptr;
  std::string name_;
  Graph* graph_ = nullptr;
  std::vector<Value*> operands_;
  std::vector<std::unique_ptr<Value>> results_;
  std::vector<std::unique_ptr<Graph>> regions_;
  std::list<std::unique_ptr<Node>>::iterator position_;
};

struct SymbolRange {
  std::int64_t min = 0, opt = 1, max = 1;
  bool operator==(const SymbolRange&) const = default;
};
using Profile = std::map<std::string, SymbolRange, std::less<>>;

// Two Dims that must be equal and are not provably so; checked when shapes are bound.
struct Constraint {
  Dim left, right;
  std::string where;  // the node
  bool operator==(const Constraint&) const = default;
};

using NamedAttributes = std::vector<std::pair<std::string, AttributeValue>>;

class Graph {
 public:
  Graph(Module& module, std::string name);
  Graph(const Graph&) = delete;
  ~Graph();

  Module& module() const { return *module_; }
  const std::string& name() const { return name_; }

  Value* add_input(std::string name, Type type);
  // The value of a weight of the module; one per graph and weight. Named like the weight unless told otherwise.
  Value* weight_value(const Weight& weight, std::string name = {});
  // Appends, or inserts before `before`. Runs inference; throws Error(invalid_model) with the node's label.
  // Results are named `result_names`, made unique; missing names are invented.
  Node* add(const OpDef& op, std::vector<Value*> operands, const NamedAttributes& attributes = {}, std::string node_name = {},
            std::vector<std::string> result_names = {}, Node* before = nullptr);
  // For parsers: takes the result types as given instead of inferring them.
  Node* add_typed(const OpDef& op, std::vector<Value*> operands, Attributes attributes, std::string node_name,
                  std::vector<std::pair<std::string, Type>> results, Node* before = nullptr);
  // Infers the results again after a change of operands or attributes.
  void reinfer(Node& node);
  void replace_uses(Value* of, Value* with);      // also among the outputs
  void rename(Value& value, std::string wanted);  // made unique
  void erase(Node& node);                         // no result may be in use
  void move_before(Node& node, Node& before);
  // Erases nodes nobody needs (keeps collectives out of it: they go too if unused; nodes that measure a symbol stay). Returns how many.
  int erase_dead();

  const std::list<std::unique_ptr<Node>>& nodes() const { return nodes_; }
  std::vector<Node*> node_list() const;  // a snapshot, safe to iterate while editing
  const std::vector<std::unique_ptr<Value>>& inputs() const { return inputs_; }
  const std::vector<std::unique_ptr<Value>>& weight_values() const { return weights_; }
  struct Output {
    std::string name;
    Value* value;
  };
  std::vector<Output>& outputs() { return outputs_; }
  const std::vector<Output>& outputs() const { return outputs_; }
  bool is_output(const Value* value) const;

  std::vector<Profile> profiles;  // at least one once imported; keys are the free symbols
  std::vector<Constraint> constraints;
  // Types of inputs and outputs as the caller sees them, where `shard` made them local; by input or output name.
  std::map<std::string, Type> global_types;
  // Ranges over all profiles.
  SymbolRanges symbol_ranges() const;
  std::string unique_name(std::string wanted);

 private:
  friend class Node;
  Value* make_value(std::string name, Type type);
  Module* module_;
  std::string name_;
  std::list<std::unique_ptr<Node>> nodes_;
  std::vector<std::unique_ptr<Value>> inputs_;
  std::vector<std::unique_ptr<Value>> weights_;
  std::vector<Output> outputs_;
  std::map<std::string, int, std::less<>> names_;
};

class Module {
 public:
  explicit Module(const OpSet& ops) : ops_(&ops) {}
  Module(const Module&) = delete;

  const OpSet& ops() const { return *ops_; }
  const OpDef& op(std::string_view name) const;  // Error(internal) if there is none
  Graph& add_graph(std::string name);
  Graph& main() const;
  // An empty graph that belongs to the module but not yet to its list; replace() puts it in the place of `old`.
  std::unique_ptr<Graph> detached_graph(std::string name);
  void replace(Graph& old, std::unique_ptr<Graph> with);
  const std::vector<std::unique_ptr<Graph>>& graphs() const { return graphs_; }

  // A tensor of the imported model under its own name; the data may be absent in parsed text.
  void add_source(std::string name, Tensor data);
  // The data of a source; throws Error(invalid_model) naming it if absent.
  const Tensor& source(const std::string& name) const;
  bool has_source(const std::string& name) const { return sources_.contains(name); }
  const std::map<std::string, Tensor>& sources() const { return sources_; }

  // The weight of this recipe: an existing one if the same recipe was added before.
  const Weight& add_weight(std::string name, RecipePtr recipe, bool frozen = false);
  const std::vector<std::unique_ptr<Weight>>& weights() const { return weights_; }
  // Drops weights no graph uses, and sources no weight uses.
  void erase_unused_weights();
  // A weight's whole value (no coordinates).
  Tensor weight_data(const Weight& weight) const;

  Mesh mesh;                         // of one rank until sharded
  std::vector<std::string> notices;  // what the user should know: "kv heads are repeated over 2 ranks"
  bool refittable = false;           // forbids to compute with the contents of weights
  // Where the imported file wants values to lie, for the mesh it was imported for: name in the file → "same" or "DIM:AXIS[,DIM:AXIS…]".
  std::map<std::string, std::string> placements;
  std::set<std::string> folded_sources;  // whose contents became constants, so that new ones would not be seen

 private:
  const OpSet* ops_;
  std::vector<std::unique_ptr<Graph>> graphs_;
  std::map<std::string, Tensor> sources_;
  std::vector<std::unique_ptr<Weight>> weights_;
};

// The contents of a value, if they are known now: a Constant node, or a weight with data and at most `limit` elements.
std::optional<Tensor> constant_of(const Value* value, std::int64_t limit = 1 << 16);

// Checks types (by inference), order, uses, names, shardings; throws Error(invalid_model) naming the node.
// A graph on its own must be a program: a region is checked with the node that owns it.
void verify(const Module& module);
void verify(const Graph& graph);

}  // namespace tandem
