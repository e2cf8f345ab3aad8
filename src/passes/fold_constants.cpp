// fold_constants: nodes whose operands are all known are computed now, under the builder's rules on size and weights.
#include <algorithm>

#include "passes/match.h"
#include "passes/passes.h"

namespace tandem::passes {
namespace {

constexpr std::int64_t kLimit = 1 << 16;

bool rewrite(Node& node) {
  if (node.is("Constant") || node.operands().empty() || !node.op().evaluate) return false;
  if (node.results().size() != 1 || !node.regions().empty()) return false;
  const auto known = [](const Value* v) {
    return !v || made_by(v, "Constant") || (v->weight() && element_count(v->weight()->recipe->shape) <= kLimit && constant_of(v, kLimit));
  };
  if (!std::ranges::all_of(node.operands(), known)) return false;
  GraphBuilder builder = builder_before(node);
  Value* result = builder.add(node.op().name, node.operands(), named(node.attributes));
  if (result->producer() && !result->producer()->is("Constant")) {
    node.graph().erase(*result->producer());
    return false;
  }
  node.graph().replace_uses(node.result(), result);
  return true;
}

}  // namespace

bool fold_constants(Module& module, const PassOptions&) { return for_each_node(module, rewrite); }

}  // namespace tandem::passes
