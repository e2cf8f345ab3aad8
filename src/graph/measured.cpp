#include "graph/measured.h"

#include <set>

#include "core/check.h"

namespace tandem {

std::optional<MeasuredExtent> measured_extent(const OpCall& call) {
  if (!measures(call.attributes)) return std::nullopt;
  return MeasuredExtent{call.attributes.text("symbol"), product(call.operand(0).dims)};
}

std::optional<MeasuredExtent> measured_extent(const Node& node) {
  return measures(node.attributes) ? measured_extent(node.call()) : std::nullopt;
}

std::string fresh_measured_symbol(const Graph& graph, std::string_view base) {
  std::set<std::string> taken;
  for (const auto& input : graph.inputs())
    for (const Dim& d : input->type.dims) d.collect_symbols(taken);
  for (const auto& node : graph.nodes())
    if (measures(node->attributes)) taken.insert(node->attributes.text("symbol"));
  for (int i = 0;; ++i)
    if (std::string name = fmt::format("{}_{}", base, i); !taken.contains(name)) return name;
}

void bind_to_bounds(const Graph& graph, SymbolValues& symbols) {
  for (const auto& node : graph.nodes())
    if (const auto extent = measured_extent(*node)) symbols[extent->symbol] = extent->bound.evaluate(symbols);
}

}  // namespace tandem
