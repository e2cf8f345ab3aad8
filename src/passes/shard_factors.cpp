// Factors: how a dimension's sharding lines up with the parts that a rule sees in it.
#include <algorithm>

#include "core/check.h"
#include "passes/shard.h"

namespace tandem::sharding {

Sharding gathered(Sharding s, const std::string& axis) {
  for (DimSharding& dim : s.dims)
    if (std::ranges::any_of(dim, [&](const Factor& f) { return std::ranges::find(f.axes, axis) != f.axes.end(); })) dim.clear();
  return s;
}

ShardingRule rule_of(const Node& node) {
  const OpCall call = node.call();
  if (node.op().rule) return node.op().rule(call);
  return node.op().pointwise ? pointwise_rule(call) : whole_rule(call);
}

namespace {

// A split factor of size a·b may be cut after `a` when the ranks divide a: every block is then whole rows of b.
bool cut(const Factor& factor, const Dim& head, const Mesh& mesh, Factor& first, Factor& second) {
  const auto tail = factor.size.exact_divide(head);
  if (!tail) return false;
  if (!factor.axes.empty() && !head.exact_divide(split_count(factor, mesh))) return false;
  first = {head, factor.axes};
  second = {*tail, {}};
  return true;
}

}  // namespace

bool distribute(const DimSharding& dim, const std::vector<Dim>& sizes, const Mesh& mesh, std::vector<DimSharding>& parts) {
  parts.assign(sizes.size(), {});
  if (dim.empty()) return true;
  std::vector<Factor> rest(dim.rbegin(), dim.rend());
  for (std::size_t i = 0; i < sizes.size(); ++i) {
    Dim open = sizes[i];
    while (open != Dim(1)) {
      if (rest.empty()) return false;
      Factor next = rest.back();
      rest.pop_back();
      if (const auto left = open.exact_divide(next.size)) {
        open = *left;
        parts[i].push_back(next);
        continue;
      }
      Factor first, second;
      if (!cut(next, open, mesh, first, second)) return false;
      parts[i].push_back(first);
      rest.push_back(second);
      open = 1;
    }
    const bool split = std::any_of(parts[i].begin(), parts[i].end(), [](const Factor& f) { return !f.axes.empty(); });
    if (!split) parts[i].clear();
  }
  return std::all_of(rest.begin(), rest.end(), [](const Factor& f) { return f.axes.empty() && f.size == Dim(1); });
}

namespace {

using Parts = std::vector<DimSharding>;

std::vector<std::string> axes_of(const DimSharding& part) {
  std::vector<std::string> axes;
  for (const Factor& f : part) axes.insert(axes.end(), f.axes.begin(), f.axes.end());
  return axes;
}

bool divides(const DimSharding& part, const Mesh& mesh) {
  return std::all_of(part.begin(), part.end(),
                     [&](const Factor& f) { return f.axes.empty() || f.size.exact_divide(split_count(f, mesh)); });
}

// The factors' shardings agreed among the operands: first come, first served, weights before activations.
class Agreement {
 public:
  Agreement(const Node& node, const ShardingRule& rule, const Mesh& mesh)
      : node_(node), rule_(rule), mesh_(mesh), parts_(rule.factors.size()) {}

  void propose(std::size_t operand, const Sharding& have) {
    const auto& dims = rule_.operands.at(operand);
    for (std::size_t d = 0; d < dims.size(); ++d) {
      std::vector<Dim> sizes;
      for (int f : dims[d]) sizes.push_back(rule_.factors[static_cast<std::size_t>(f)].size);
      Parts parts;
      if (!distribute(have.dim(static_cast<int>(d)), sizes, mesh_, parts)) {
        refuse_inside_block(have.dim(static_cast<int>(d)), sizes);
        continue;
      }
      for (std::size_t j = 0; j < parts.size(); ++j) adopt(static_cast<std::size_t>(dims[d][j]), parts[j]);
    }
  }

  Sharding assemble(const std::vector<ShardingRule::DimFactors>& dims) const {
    Sharding s;
    for (const auto& factors : dims) {
      DimSharding dim;
      for (int f : factors) {
        const DimSharding& part = parts_[static_cast<std::size_t>(f)];
        if (part.empty()) dim.push_back({rule_.factors[static_cast<std::size_t>(f)].size, {}});
        else dim.insert(dim.end(), part.begin(), part.end());
      }
      s.dims.push_back(std::move(dim));
    }
    return s.normalized(mesh_);
  }

  std::vector<Partial> partial() const {
    std::vector<Partial> all;
    for (std::size_t f = 0; f < parts_.size(); ++f)
      if (rule_.factors[f].role == ShardingRule::Role::contract)
        for (const std::string& axis : axes_of(parts_[f])) all.push_back({axis, rule_.factors[f].reduction});
    return all;
  }

 private:
  // Rows that share a scale must not part: [blocks, block].
  void refuse_inside_block(const DimSharding& dim, const std::vector<Dim>& sizes) const {
    const bool quantized = node_.is("DequantMatMul") || node_.is("DequantizeLinear") || node_.is("QuantizeLinear");
    if (!quantized || sizes.size() != 2) return;
    const std::string axes = fmt::format("{}", fmt::join(axes_of(dim), ", "));
    throw Error(ErrorCode::unsupported,
                fmt::format("{} in quantisation blocks of {} cannot be split over {}: a border between ranks would lie inside a block",
                            (sizes[0] * sizes[1]).to_string(), sizes[1].to_string(), axes),
                node_.label());
  }

  void adopt(std::size_t factor, const DimSharding& part) {
    const auto& about = rule_.factors[factor];
    if (part.empty() || !parts_[factor].empty() || about.role == ShardingRule::Role::whole) return;
    // Padding of a contracted dimension would be added in.
    if (about.role == ShardingRule::Role::contract && !divides(part, mesh_)) return;
    for (const std::string& axis : axes_of(part))
      for (const DimSharding& other : parts_)
        for (const std::string& used : axes_of(other))
          if (used == axis) return;
    parts_[factor] = part;
  }

  const Node& node_;
  const ShardingRule& rule_;
  const Mesh& mesh_;
  Parts parts_;
};

// Partial sums that may stay: through ops that only move elements, and through Add where both sides are partial alike.
std::vector<Partial> passing_partial(const Node& node, const ShardingRule& rule, const std::vector<Sharding>& have) {
  if (have.empty() || have[0].partial.empty()) return {};
  if (node.is("Add") && have.size() == 2 && have[0].partial == have[1].partial) return have[0].partial;
  const bool moves = node.is("Reshape") || node.is("Transpose");
  if (moves && have.size() == 1 && rule.operands.size() == 1) return have[0].partial;
  return {};
}

}  // namespace

ShardingDecision decide(const Node& node, const std::vector<Sharding>& have, const Mesh& mesh) {
  if (node.op().shard) return node.op().shard(node, have, mesh);
  const ShardingRule rule = rule_of(node);
  Agreement agreement(node, rule, mesh);
  for (const bool weights : {true, false})
    for (std::size_t i = 0; i < have.size(); ++i)
      if (node.operand(i) && (node.operand(i)->weight() != nullptr) == weights) agreement.propose(i, have[i]);
  ShardingDecision decision;
  const std::vector<Partial> passing = passing_partial(node, rule, have);
  for (std::size_t i = 0; i < have.size(); ++i) {
    decision.operands.push_back(agreement.assemble(rule.operands.at(i)));
    decision.operands.back().partial = passing;
  }
  for (const auto& dims : rule.results) {
    decision.results.push_back(agreement.assemble(dims));
    decision.results.back().partial = passing.empty() ? agreement.partial() : passing;
  }
  return decision;
}

}  // namespace tandem::sharding
