// Trace: follows a sharding of a value back through the formulas of the ops, to the graph inputs and weights that would have to be split.
#pragma once

#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "passes/shard.h"

namespace tandem::sharding {

class Trace {
 public:
  explicit Trace(const Mesh& mesh) : mesh_(mesh) {}

  // May be called for several values; what is found adds up.
  void follow(const Value* value, const Sharding& s);
  // The same for one dimension split by one axis.
  void follow(const Value* value, int dim, const std::string& axis);

  std::map<const Value*, Sharding> inputs, weights;
  std::set<const Node*> products;  // MatMuls whose columns the factor is, Convs whose channels
  std::set<const Node*> barriers;  // nodes that must have the dimension whole: it goes no further there

 private:
  using DimsFactors = std::vector<ShardingRule::DimFactors>;
  bool spread(const ShardingRule& rule, const DimsFactors& dims, const Sharding& s, std::vector<DimSharding>& parts) const;
  Sharding assemble(const ShardingRule& rule, const DimsFactors& dims, const std::vector<DimSharding>& parts) const;

  const Mesh& mesh_;
  std::set<std::pair<const Value*, std::string>> seen_;
};

// Adds what an axis splits to what other axes split already; a dimension split by both keeps the first.
void add_seeds(Seeds& seeds, const std::map<const Value*, Sharding>& found);

// The strategy cp: the sequence of q, k and v, or a cache and not the rows that attend to it.
void seed_sequence(const Graph& graph, const std::string& axis, const Mesh& mesh, Seeds& seeds);

}  // namespace tandem::sharding
