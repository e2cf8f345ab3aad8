// reduce_terms: the all-reduce of a sum, one term of which is all-reduced before, becomes that plus the all-reduce of the other term. Under
// tp the residual of a transformer is a sum over the ranks like what is added to it: so it is the same on all ranks from then on, no rank
// adds parts to parts, and what is left is all-reduce, addition and norm in a row.
#include <map>
#include <tuple>

#include "passes/match.h"
#include "passes/passes.h"
#include "passes/pipeline.h"

namespace tandem::passes {
namespace {

using Key = std::tuple<const Value*, std::string, RankLists>;  // what is reduced, and over whom

Key key_of(const Value* value, const Node& reduce) {
  return {value, reduce.attributes.text("axis"), reduce.attributes.get<RankLists>("groups")};
}

// Puts terms in the place of `reduce`, if one is known; gives what its operand's sum is then.
Value* sum_of(Node& reduce, const std::map<Key, Value*>& known) {
  Node* add = made_by(reduce.operand(0), "Add");
  if (!add || add->operand(0)->type != add->operand(1)->type) return reduce.result();
  for (const std::size_t i : {0u, 1u}) {
    const auto found = known.find(key_of(add->operand(i), reduce));
    if (found == known.end()) continue;
    GraphBuilder builder = builder_before(reduce);
    Value* other = builder.add("AllReduce", {add->operand(1 - i)}, named(reduce.attributes));
    other->sharding = reduce.result()->sharding;
    other->producer()->note = reduce.note;
    Value* sum = builder.add("Add", {found->second, other});
    sum->sharding = reduce.result()->sharding;
    reduce.graph().replace_uses(reduce.result(), sum);
    return sum;
  }
  return reduce.result();
}

bool rewrite(Graph& graph) {
  std::map<Key, Value*> known;
  bool changed = false;
  for (Node* node : graph.node_list()) {
    if (!node->is("AllReduce") || node->attributes.text("reduce") != "sum") continue;
    Value* sum = sum_of(*node, known);
    changed |= sum != node->result();
    known.emplace(key_of(node->operand(0), *node), sum);
    if (sum != node->result()) graph.erase(*node);
  }
  if (changed) graph.erase_dead();  // the sums of parts
  return changed;
}

}  // namespace

bool reduce_terms(Module& module, const PassOptions& options) { return options.same_program && for_each_graph(module, rewrite); }

}  // namespace tandem::passes
