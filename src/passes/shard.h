// shard: rewrites one global program into the program of one rank of a mesh.
//
// A strategy gives shardings to graph inputs and weights (seeds); formulas carry them forward node by node; where an
// operand lies otherwise than a node needs it, the cheapest conversion is inserted: nothing for a weight (its recipe
// is sliced), ShardSlice for a value all ranks hold, AllGather for a split one, AllReduce for a partial sum.
#pragma once

#include <map>
#include <set>
#include <string>
#include <vector>

#include "graph/graph.h"

namespace tandem {

struct ShardOptions {
  Mesh mesh;
  // Strategy per axis: "tp", "cp", "dp", or "explicit" where `io` alone says what it splits. An axis that is not named gets the strategy of
  // its name.
  std::map<std::string, std::string> strategies;
  // Inputs, outputs and weights by name that are to lie otherwise than the strategies say: "same" or "DIM:AXIS[,DIM:AXIS…]", the axes of
  // one dimension major first; results of nodes too, where a value has that name.
  std::map<std::string, std::string> io;
};

// Rewrites every program of the module; afterwards types are local, Graph::global_types holds the types of inputs and
// outputs as the caller sees them. Throws Error(unsupported) where nothing can be split or heads do not divide,
// Error(invalid_argument) for an unknown strategy. The module is unchanged when it throws.
bool shard(Module& module, const ShardOptions& options);

namespace sharding {

// Shardings by value of the global graph.
struct Seeds {
  std::map<const Value*, Sharding> values;  // graph inputs and weight values
  std::set<const Node*> appends;            // Concat(past, new) along the sequence, the past being a cache that comes in
  std::vector<std::string> notices;
};

// An `io` entry for a value of this type. Throws Error(invalid_argument).
Sharding parse_placement(const std::string& name, const std::string& text, const Type& type, const Mesh& mesh);

// Writes the placements of `io` over the seeds of inputs and weights. Throws Error(unsupported) naming a weight that cannot be placed.
void place_given(const Graph& graph, const ShardOptions& options, Seeds& seeds);
// Whether an entry of `io` names the axis.
bool is_given(const ShardOptions& options, const std::string& axis);
// Names of `io` that are nothing of the model would be ignored silently: Error(invalid_argument); a notice where the file itself asked.
void check_given(const Module& module, const ShardOptions& options, std::vector<std::string>& notices);

// What the strategies of all axes ask for.
Seeds seed(const Graph& graph, const ShardOptions& options);

// Splits a dimension's sharding over consecutive parts of the given sizes; nothing if a split factor straddles a border.
bool distribute(const DimSharding& dim, const std::vector<Dim>& sizes, const Mesh& mesh, std::vector<DimSharding>& parts);

// Every dimension whole that `axis` has a part in splitting.
Sharding gathered(Sharding s, const std::string& axis);

// The rule of a node, by its op's formula.
ShardingRule rule_of(const Node& node);

// What the node needs of its operands and gives as results, when they lie as in `have`.
ShardingDecision decide(const Node& node, const std::vector<Sharding>& have, const Mesh& mesh);

// The same for Concat(past, new) where the past lies in blocks along the joined dimension: Append.
bool appends_to_blocks(const Node& node, const std::vector<Sharding>& have);
ShardingDecision decide_append(const Node& node, const std::vector<Sharding>& have, const Mesh& mesh);

// The same for Attention; finish_attention adds what the node needs besides (moved causal diagonal, repeated kv heads)
// to the local graph and to `operands`.
ShardingDecision decide_attention(const Node& node, std::vector<Sharding> have, const Mesh& mesh);
void finish_attention(Graph& local, Node& node, std::vector<Value*>& operands, const Mesh& mesh, ShardingDecision& decision);

// Adds nodes to `graph` that bring a local value from one sharding to another; `global` is its global type.
Value* convert(Graph& graph, Value* local, const Type& global, const Sharding& from, const Sharding& to, const Mesh& mesh,
               const std::string& why);

}  // namespace sharding
}  // namespace tandem
