// Measured symbols: extents that depend on contents, such as the number of tuples that NonZero gives. An op with the text attribute
// `symbol` measures one: the extent of that name in its results. It is at most the number of elements of operand 0, and the last result,
// an i64 scalar, holds it once the op has run. A plain evaluator of such an op is given the bound as the extent, and returns results of
// the real one.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "graph/graph.h"

namespace tandem {

struct MeasuredExtent {
  std::string symbol;
  Dim bound;
};

// What the op measures; nothing for most.
std::optional<MeasuredExtent> measured_extent(const OpCall& call);
std::optional<MeasuredExtent> measured_extent(const Node& node);
inline bool measures(const Attributes& attributes) { return attributes.has("symbol"); }

// A name for one that nothing in the graph has.
std::string fresh_measured_symbol(const Graph& graph, std::string_view base);

// Gives the measured symbols of the graph their bounds, from the values of the others.
void bind_to_bounds(const Graph& graph, SymbolValues& symbols);

}  // namespace tandem
