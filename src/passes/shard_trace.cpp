#include "passes/shard_trace.h"

#include "passes/match.h"

namespace tandem::sharding {
void Trace::follow(const Value* value, const Sharding& s) {
  if (s.is_same() || !seen_.insert({value, s.to_string()}).second) return;
  if (value->weight()) {
    weights[value] = s;
    return;
  }
  if (value->is_input()) {
    inputs[value] = s;
    return;
  }
  const Node& node = *value->producer();
  if (node.is("Constant")) return;  // every rank cuts its part
  const ShardingRule rule = rule_of(node);
  std::vector<DimSharding> parts(rule.factors.size());
  if (!spread(rule, rule.results.at(static_cast<std::size_t>(value->index())), s, parts)) {
    barriers.insert(&node);
    return;
  }
  if ((passes::is_product(node) || node.is("Conv")) && node.operand(1)->weight()) products.insert(&node);
  for (std::size_t i = 0; i < node.operands().size(); ++i)
    if (node.operand(i)) follow(node.operand(i), assemble(rule, rule.operands.at(i), parts));
}

void Trace::follow(const Value* value, int dim, const std::string& axis) {
  follow(value, Sharding::split(value->type.rank(), dim, value->type.dims.at(static_cast<std::size_t>(dim)), axis));
}

bool Trace::spread(const ShardingRule& rule, const DimsFactors& dims, const Sharding& s, std::vector<DimSharding>& parts) const {
  for (std::size_t d = 0; d < dims.size(); ++d) {
    std::vector<Dim> sizes;
    for (int f : dims[d]) sizes.push_back(rule.factors[static_cast<std::size_t>(f)].size);
    std::vector<DimSharding> found;
    if (!distribute(s.dim(static_cast<int>(d)), sizes, mesh_, found)) return false;
    for (std::size_t j = 0; j < found.size(); ++j) {
      const auto f = static_cast<std::size_t>(dims[d][j]);
      if (!found[j].empty() && rule.factors[f].role == ShardingRule::Role::whole) return false;
      parts[f] = found[j];
    }
  }
  return true;
}

Sharding Trace::assemble(const ShardingRule& rule, const DimsFactors& dims, const std::vector<DimSharding>& parts) const {
  Sharding s;
  for (const auto& factors : dims) {
    s.dims.emplace_back();
    for (int f : factors) {
      const DimSharding& part = parts[static_cast<std::size_t>(f)];
      if (part.empty()) s.dims.back().push_back({rule.factors[static_cast<std::size_t>(f)].size, {}});
      else s.dims.back().insert(s.dims.back().end(), part.begin(), part.end());
    }
  }
  return s.normalized(mesh_);
}

}  // namespace tandem::sharding
