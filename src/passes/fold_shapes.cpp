// fold_shapes: an integer value whose elements are expressions of the input shapes becomes a DimValue or a Constant.
#include "ops/shape_rules.h"
#include "passes/match.h"
#include "passes/passes.h"

namespace tandem::passes {
namespace {

bool fold(Graph& graph) {
  bool changed = false;
  GraphBuilder reader(graph);  // kept over the whole graph: it remembers contents
  for (Node* node : graph.node_list()) {
    if (node->is("Constant") || node->is("DimValue") || node->results().size() != 1 || !node->op().fold) continue;
    Value* result = node->result();
    if (result->uses().empty() && !graph.is_output(result)) continue;
    const auto shape = known_shape(result->type.dims);
    if (!shape) continue;
    const auto contents = reader.dims_of(result);
    if (!contents || static_cast<std::int64_t>(contents->size()) != element_count(*shape)) continue;
    GraphBuilder builder = builder_before(*node);
    graph.replace_uses(result, builder.dim_value(*contents, *shape, result->type.dtype));
    changed = true;
  }
  return changed;
}

}  // namespace

bool fold_shapes(Module& module, const PassOptions&) { return for_each_graph(module, fold); }

}  // namespace tandem::passes
