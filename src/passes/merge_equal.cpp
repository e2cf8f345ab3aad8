// merge_equal: nodes of one op with the same operands and attributes are computed once.
#include <map>
#include <tuple>

#include "passes/match.h"
#include "passes/passes.h"

namespace tandem::passes {
namespace {

// Collectives stay: merging them could change their order between ranks.
bool may_merge(const Node& node) { return node.regions().empty() && !node.op().collective && node.op().evaluate; }

bool merge(Graph& graph) {
  using Key = std::tuple<const OpDef*, std::vector<Value*>, std::string>;
  std::map<Key, std::vector<Node*>> seen;
  bool changed = false;
  for (Node* node : graph.node_list()) {
    if (!may_merge(*node)) continue;
    std::vector<Node*>& same = seen[{&node->op(), node->operands(), node->result()->type.to_string()}];
    Node* found = nullptr;
    for (Node* other : same)
      if (other->attributes == node->attributes && other->result()->sharding == node->result()->sharding) found = other;
    if (!found) {
      same.push_back(node);
      continue;
    }
    for (std::size_t i = 0; i < node->results().size(); ++i) graph.replace_uses(node->result(i), found->result(i));
    graph.erase(*node);
    changed = true;
  }
  return changed;
}

}  // namespace

bool merge_equal(Module& module, const PassOptions&) { return for_each_graph(module, merge); }

}  // namespace tandem::passes
