// Seeds: which inputs and weights a strategy splits. Found by following one factor of a value back to where it comes from.
#include <algorithm>
#include <set>

#include "core/check.h"
#include "passes/match.h"
#include "passes/shard_trace.h"

namespace tandem::sharding {
namespace {

void seed_heads(const Graph& graph, const std::string& axis, const Mesh& mesh, Seeds& seeds, std::set<const Node*>& columns) {
  const int n = mesh.size(axis);
  for (const auto& node : graph.nodes()) {
    if (!node->is("Attention")) continue;
    for (std::size_t i = 0; i < 3; ++i) {
      const Value* value = node->operand(i);
      const Dim heads = value->type.dims.at(1);
      if (!heads.exact_divide(n)) {
        if (i > 0 && heads.is_constant() && n % heads.constant() == 0) {
          seeds.notices.push_back(
              fmt::format("{}: {} kv heads are repeated over {} ranks of {}", node->label(), heads.to_string(), n, axis));
          continue;
        }
        throw Error(ErrorCode::unsupported,
                    fmt::format("{} heads of '{}' do not divide over {}={}; choose a size of {} that divides the heads", heads.to_string(),
                                value->name(), axis, n, axis),
                    node->label());
      }
      Trace trace(mesh);
      trace.follow(value, Sharding::split(value->type.rank(), 1, heads, axis));
      add_seeds(seeds, trace.weights);
      add_seeds(seeds, trace.inputs);
      columns.insert(trace.products.begin(), trace.products.end());
    }
  }
}

// The dimension of its first operand that a product or convolution with a weight sums over; -1: of neither.
int summed_dim(const Node& node) {
  if ((!passes::is_product(node) && !node.is("Conv")) || !node.operand(1)->weight()) return -1;
  const Type& x = node.operand(0)->type;
  if (passes::is_product(node)) return x.rank() - 1;
  const std::size_t channels = node.attributes.text("layout") == "channels_last" ? x.dims.size() - 1 : 1;
  return node.operand(1)->type.dims[channels] == x.dims[channels] ? static_cast<int>(channels) : -1;  // groups are summed apart
}

// product → pointwise → product, convolutions alike: columns of the first, rows of the second.
void seed_chains(const Graph& graph, const std::string& axis, const Mesh& mesh, Seeds& seeds, std::set<const Node*>& columns) {
  std::set<const Node*> rows;
  for (const auto& node : graph.nodes()) {
    const int summed = summed_dim(*node);
    if (summed < 0 || columns.contains(node.get())) continue;
    const Value* left = node->operand(0);
    if (!left->type.dims[static_cast<std::size_t>(summed)].exact_divide(mesh.size(axis))) continue;
    Trace trace(mesh);
    trace.follow(left, summed, axis);
    const bool taken = std::ranges::any_of(trace.products, [&](const Node* p) { return rows.contains(p); });
    const bool known = std::ranges::all_of(trace.products, [&](const Node* p) { return columns.contains(p); });
    if (!trace.barriers.empty() || !trace.inputs.empty() || trace.products.empty() || taken) continue;
    rows.insert(node.get());
    if (known) continue;
    add_seeds(seeds, trace.weights);
    columns.insert(trace.products.begin(), trace.products.end());
  }
}

// The embeddings' rows: the longest table that ids from an input choose from. 0 if there is none.
std::int64_t vocabulary_of(const Graph& graph) {
  std::int64_t rows = 0;
  for (const auto& node : graph.nodes()) {
    if (!node->is("Gather") || !node->operand(0)->weight() || node->operand(0)->type.rank() != 2 || node->attributes.integer("axis") != 0)
      continue;
    const Value* ids = node->operand(1);
    while (!ids->is_input() && ids->producer() && (ids->producer()->is("Cast") || ids->producer()->is("Reshape")))
      ids = ids->producer()->operand(0);
    if (ids->is_input()) rows = std::max(rows, node->operand(0)->type.dims[0].value().value_or(0));
  }
  return rows;
}

// Tables of the vocabulary by rows, products into it by columns. Tied weights are slices of the same source.
void seed_vocabulary(const Graph& graph, const std::string& axis, const Mesh& mesh, Seeds& seeds, const std::set<const Node*>& columns) {
  const std::int64_t rows = vocabulary_of(graph);
  if (rows == 0) return;
  std::map<const Value*, Sharding> found;
  for (const auto& node : graph.nodes()) {
    const bool table = node->is("Gather") && node->attributes.integer("axis") == 0;
    const bool product = passes::is_product(*node) && !columns.contains(node.get());
    if (!table && !product) continue;
    const Value* weight = node->operand(table ? 0 : 1);
    if (!weight->weight() || weight->type.rank() != 2 || weight->type.dims[table ? 0 : 1] != Dim(rows)) continue;
    if (rows % mesh.size(axis) != 0) {
      seeds.notices.push_back(
          fmt::format("{}: a vocabulary of {} does not divide over {}={} and stays whole", node->label(), rows, axis, mesh.size(axis)));
      continue;
    }
    found[weight] = Sharding::split(2, table ? 0 : 1, rows, axis);
  }
  add_seeds(seeds, found);
}

void seed_tensor(const Graph& graph, const std::string& axis, const Mesh& mesh, Seeds& seeds) {
  std::set<const Node*> columns;
  seed_heads(graph, axis, mesh, seeds, columns);
  seed_chains(graph, axis, mesh, seeds, columns);
  seed_vocabulary(graph, axis, mesh, seeds, columns);
}

void seed_batch(const Graph& graph, const std::string& axis, const Mesh& mesh, Seeds& seeds) {
  for (const Graph::Output& output : graph.outputs()) {
    if (output.value->type.dims.empty()) continue;
    Trace trace(mesh);
    trace.follow(output.value, Sharding::split(output.value->type.rank(), 0, output.value->type.dims[0], axis));
    add_seeds(seeds, trace.inputs);
  }
}

}  // namespace

void add_seeds(Seeds& seeds, const std::map<const Value*, Sharding>& found) {
  for (const auto& [value, s] : found) {
    Sharding& into = seeds.values[value];
    into.dims.resize(value->type.dims.size());
    for (std::size_t d = 0; d < into.dims.size(); ++d)
      if (into.dims[d].empty()) into.dims[d] = s.dim(static_cast<int>(d));
  }
}

Seeds seed(const Graph& graph, const ShardOptions& options) {
  Seeds seeds;
  for (const MeshAxis& axis : options.mesh.axes()) {
    if (axis.size == 1) continue;
    const auto named = options.strategies.find(axis.name);
    const std::string& strategy = named == options.strategies.end() ? axis.name : named->second;
    Seeds before = seeds;
    if (strategy == "tp") seed_tensor(graph, axis.name, options.mesh, seeds);
    else if (strategy == "cp") seed_sequence(graph, axis.name, options.mesh, seeds);
    else if (strategy == "dp") seed_batch(graph, axis.name, options.mesh, seeds);
    else if (strategy != "explicit")
      fail(ErrorCode::invalid_argument, "mesh axis '{}' has no strategy: name it tp, cp or dp, or give --strategy", axis.name);
    place_given(graph, options, seeds);
    if (strategy == "explicit") {
      if (!is_given(options, axis.name))
        fail(ErrorCode::invalid_argument,
             "nothing is placed on axis '{}': strategy explicit needs --io or a file with sharding annotations", axis.name);
      continue;
    }
    if (seeds.values == before.values && !is_given(options, axis.name))
      fail(ErrorCode::unsupported, "nothing in the model can be split over {}={} by strategy {}", axis.name, axis.size, strategy);
  }
  return seeds;
}

}  // namespace tandem::sharding
