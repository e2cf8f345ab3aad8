#include "api/build/extents.h"

#include <algorithm>

#include "build/build.h"
#include "core/check.h"
#include "graph/builder.h"
#include "graph/measured.h"

namespace tandem {
namespace {

void collect(const AttributeValue& value, std::set<std::string>& into) {
  if (const auto* dim = std::get_if<Dim>(&value)) dim->collect_symbols(into);
  if (const auto* dims = std::get_if<std::vector<Dim>>(&value))
    for (const Dim& d : *dims) d.collect_symbols(into);
}

// The product of what a dimension consists of must be its extent.
void require_factors(GraphBuilder& builder, const ShardingRule& rule, const std::vector<Dim>& dims,
                     const std::vector<ShardingRule::DimFactors>& factors) {
  for (std::size_t d = 0; d < dims.size() && d < factors.size(); ++d) {
    if (factors[d].empty()) continue;
    Dim extent = 1;
    for (const int f : factors[d]) extent = extent * rule.factors[static_cast<std::size_t>(f)].size;
    builder.require_equal(dims[d], extent);
  }
}

const Dim& extent(const Node& node, std::size_t operand, std::size_t dim) { return node.operand(operand)->type.dims.at(dim); }

void at_most(GraphBuilder& builder, const Dim& a, const Dim& limit) { builder.require_equal(min(a, limit), a); }

// Bounds lie inside the extent.
void require_slice(GraphBuilder& builder, const Node& node) {
  const auto& axes = node.attributes.integers("axes");
  const auto& steps = node.attributes.integers("steps");
  for (std::size_t i = 0; i < axes.size(); ++i) {
    const auto rank = static_cast<std::int64_t>(node.operand(0)->type.dims.size());
    const Dim& whole = extent(node, 0, static_cast<std::size_t>(axes[i] < 0 ? axes[i] + rank : axes[i]));
    const Dim &start = node.attributes.dims("starts")[i], &end = node.attributes.dims("ends")[i];
    const bool forward = steps.empty() || steps[i] > 0;
    at_most(builder, 0, forward ? start : end + Dim(1));
    at_most(builder, forward ? start : end, forward ? end : start);
    at_most(builder, forward ? end : start, forward ? whole : max(whole - Dim(1), Dim(0)));
  }
}

void require_gather_elements(GraphBuilder& builder, const Node& node) {
  const std::size_t rank = node.operand(0)->type.dims.size();
  const std::int64_t axis = node.attributes.integer("axis");
  for (std::size_t d = 0; d < rank; ++d)
    if (d != static_cast<std::size_t>(axis < 0 ? axis + static_cast<std::int64_t>(rank) : axis))
      at_most(builder, extent(node, 1, d), extent(node, 0, d));
}

// updates: the indices' leading extents, then those of the slices.
void require_scatter(GraphBuilder& builder, const Node& node) {
  for (std::size_t d = 0; d + 1 < node.operand(1)->type.dims.size(); ++d) builder.require_equal(extent(node, 1, d), extent(node, 2, d));
}

void require_of(GraphBuilder& builder, const Node& node) {
  if (node.is("Reshape")) builder.require_equal(product(node.operand(0)->type.dims), product(node.result()->type.dims));
  if (node.is("Slice")) require_slice(builder, node);
  if (node.is("GatherElements")) require_gather_elements(builder, node);
  if (node.is("ScatterND")) require_scatter(builder, node);
  if (!node.op().rule) return;
  const OpCall call = node.call();
  const ShardingRule rule = node.op().rule(call);
  const bool attends_over_ranks = node.is("Attention") && communicates(node);  // its mask has the columns of all ranks
  for (std::size_t i = 0; i < call.operands.size(); ++i)
    if (call.has_operand(i) && !(attends_over_ranks && i == 3)) require_factors(builder, rule, call.operand(i).dims, rule.operands.at(i));
  for (std::size_t i = 0; i < call.results.size(); ++i) require_factors(builder, rule, call.results[i].dims, rule.results.at(i));
}

}  // namespace

void check_symbols(const Graph& graph, const std::vector<Type>& inputs, const Mesh& mesh) {
  std::set<std::string> known, used;
  for (const MeshAxis& axis : mesh.axes()) known.insert("@" + axis.name);
  for (const Type& type : inputs)
    for (const Dim& d : type.dims) {
      d.collect_symbols(used);
      if (d.is_symbol()) known.insert(d.to_string());
    }
  const auto check_used = [&](const std::string& node) {
    for (const std::string& symbol : used)
      if (!known.contains(symbol))
        throw Error(ErrorCode::invalid_argument,
                    fmt::format("'{}' is {}", symbol,
                                symbol.starts_with('@') ? "no coordinate of the network's mesh"
                                                        : "the extent of no input by itself, so that nothing gives its value"),
                    node);
  };
  check_used("");
  for (const auto& node : graph.nodes()) {
    used.clear();
    for (const AttributeValue& value : node->attributes.values()) collect(value, used);
    check_used(node->label());
    if (measures(node->attributes)) known.insert(node->attributes.text("symbol"));
  }
}

void require_equal_extents(Graph& graph) {
  GraphBuilder builder(graph);
  for (const auto& node : graph.nodes()) {
    builder.set_context(node->label());
    try {
      require_of(builder, *node);
    } catch (const Error& error) {
      throw error.at_node(node->label());
    }
  }
}

}  // namespace tandem
