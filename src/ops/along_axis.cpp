#include "ops/along_axis.h"

#include "ops/shape_rules.h"

namespace tandem {

int axis_of(const OpCall& call) { return normalize_axis(call.attributes.integer("axis"), call.operand(0).rank()); }

ShardingRule whole_along_axis(const OpCall& call) {
  ShardingRule rule = pointwise_rule(call);
  for (const int factor : rule.results[0][static_cast<std::size_t>(axis_of(call))])
    rule.factors[static_cast<std::size_t>(factor)].role = ShardingRule::Role::whole;
  return rule;
}

}  // namespace tandem
