// The strategy cp. Without a cache the sequence of q, k and v is split. With one, attention of few new rows to many old ones, the cache is
// split: q and everything else that goes with the new rows stay whole.
#include <algorithm>
#include <optional>

#include "core/check.h"
#include "passes/shard_trace.h"

namespace tandem::sharding {
namespace {

constexpr int kSequence = 2;

int joined_dim(const Node& concat) {
  const auto axis = static_cast<int>(concat.attributes.integer("axis"));
  return axis < 0 ? axis + concat.result()->type.rank() : axis;
}

const Dim& joined_extent(const Node& concat, std::size_t operand) {
  return concat.operand(operand)->type.dims[static_cast<std::size_t>(joined_dim(concat))];
}

// Whether a value comes in from the caller and is only moved and cast on its way here.
bool comes_in(const Trace& trace) {
  return trace.barriers.empty() && trace.weights.empty() && trace.products.empty() && !trace.inputs.empty();
}

// Concat(past, new), and what the past is made of.
struct Append {
  const Node* join;
  std::map<const Value*, Sharding> past;
};

// Attention nodes whose keys and values are appended to a cache.
struct Caches {
  std::set<const Node*> attention, appends;
  std::map<const Value*, Sharding> past;
  std::vector<std::string> notices;
};

// An input that looks like keys or values, or what is joined and turned from one: an update other than Concat(past, new) takes it whole.
bool is_cache_like(const Value* part, const Value* keys) {
  if (!part || part->weight()) return false;
  if (!part->is_input()) {
    const Node& maker = *part->producer();
    return (maker.is("Concat") || maker.is("Transpose")) &&
           std::ranges::any_of(maker.operands(), [&](const Value* of) { return is_cache_like(of, keys); });
  }
  return part->type.rank() == 4 && part->type.dims[1] == keys->type.dims[1] && part->type.dims[3] == keys->type.dims[3];
}

// How keys (operand 1) or values (2) are appended to a cache, if they are. A cache that they meet otherwise is worth a notice.
std::optional<Append> find_append(const Node& attention, std::size_t operand, const std::string& axis, const Mesh& mesh,
                                  std::vector<std::string>& notices) {
  const Value* keys = attention.operand(operand);
  Trace trace(mesh);
  trace.follow(keys, kSequence, axis);
  if (trace.barriers.size() != 1) return std::nullopt;
  const Node& join = **trace.barriers.begin();
  if (join.is("Concat") && join.operands().size() == 2) {
    Trace past(mesh), fresh(mesh);
    past.follow(join.operand(0), joined_dim(join), axis);
    fresh.follow(join.operand(1), joined_dim(join), axis);
    // Where both come in, as for attention alone, what is new has a row for each row of q.
    const bool rows = joined_extent(join, 1) == attention.operand(0)->type.dims[kSequence];
    if (comes_in(past) && (!comes_in(fresh) || rows)) return Append{&join, past.inputs};
  }
  const std::string notice = fmt::format("{}: it is not Concat(past, new), so the cache is whole on every rank of {}", join.label(), axis);
  const bool cache = std::ranges::any_of(join.operands(), [&](const Value* part) { return is_cache_like(part, keys); });
  if (cache && std::ranges::find(notices, notice) == notices.end()) notices.push_back(notice);
  return std::nullopt;
}

Caches find_caches(const Graph& graph, const std::string& axis, const Mesh& mesh) {
  Caches caches;
  for (const auto& node : graph.nodes()) {
    if (!node->is("Attention")) continue;
    const auto keys = find_append(*node, 1, axis, mesh, caches.notices);
    const auto values = find_append(*node, 2, axis, mesh, caches.notices);
    if (!keys || !values) continue;
    caches.attention.insert(node.get());
    for (const Append& append : {*keys, *values}) {
      caches.appends.insert(append.join);
      caches.past.insert(append.past.begin(), append.past.end());
    }
  }
  return caches;
}

// A Dim's value for the shapes that the program is to be good at.
std::int64_t typical(const Dim& dim, const Graph& graph) {
  std::set<std::string> names;
  dim.collect_symbols(names);
  SymbolValues symbols;
  for (const std::string& name : names) {
    const auto found = graph.profiles.empty() ? Profile::const_iterator() : graph.profiles[0].find(name);
    symbols[name] = graph.profiles.empty() || found == graph.profiles[0].end() ? 1 : found->second.opt;
  }
  return dim.evaluate(symbols);
}

// Splitting the cache saves memory and the reading of it; splitting the rows saves work on the rows.
bool cache_is_longer(const Caches& caches, const Graph& graph) {
  return std::ranges::any_of(
      caches.appends, [&](const Node* join) { return typical(joined_extent(*join, 0), graph) >= typical(joined_extent(*join, 1), graph); });
}

}  // namespace

void seed_sequence(const Graph& graph, const std::string& axis, const Mesh& mesh, Seeds& seeds) {
  const Caches caches = find_caches(graph, axis, mesh);
  seeds.notices.insert(seeds.notices.end(), caches.notices.begin(), caches.notices.end());
  seeds.appends.insert(caches.appends.begin(), caches.appends.end());
  Trace fresh(mesh);  // what the new rows are made of
  if (!caches.attention.empty()) {
    const bool split_cache = cache_is_longer(caches, graph);
    seeds.notices.push_back(split_cache
                                ? fmt::format("the cache is split over {}={}, the new rows are on every rank", axis, mesh.size(axis))
                                : fmt::format("more new rows than the cache is long are split over {}={}, the cache is on every rank; "
                                              "a shape with a longer cache splits the cache",
                                              axis, mesh.size(axis)));
    if (split_cache) {
      add_seeds(seeds, caches.past);
      for (const Node* node : caches.attention) fresh.follow(node->operand(0), kSequence, axis);
    }
  }
  for (const auto& node : graph.nodes()) {
    if (!node->is("Attention")) continue;
    for (std::size_t i = 0; i < 3; ++i) {
      Trace trace(mesh);
      trace.follow(node->operand(i), kSequence, axis);
      const bool whole = std::ranges::any_of(trace.inputs, [&](const auto& input) { return fresh.inputs.contains(input.first); });
      if (!whole) add_seeds(seeds, trace.inputs);
    }
  }
}

bool appends_to_blocks(const Node& node, const std::vector<Sharding>& have) {
  const DimSharding& blocks = have[0].dim(joined_dim(node));
  return blocks.size() == 1 && blocks[0].axes.size() == 1;
}

ShardingDecision decide_append(const Node& node, const std::vector<Sharding>& have, const Mesh& mesh) {
  const int dim = joined_dim(node);
  const std::string axis = have[0].dim(dim)[0].axes[0];
  ShardingDecision decision = decide(node, {have[0], gathered(have[1], axis)}, mesh);  // of the other dimensions
  const auto split = [&](Sharding& s, const Dim& extent) {
    s.dims.resize(static_cast<std::size_t>(node.result()->type.rank()));
    s.dims[static_cast<std::size_t>(dim)] = {{extent, {axis}}};
  };
  split(decision.operands[0], joined_extent(node, 0));
  split(decision.results[0], node.result()->type.dims[static_cast<std::size_t>(dim)]);
  decision.op = "Append";
  decision.attributes = {
      {"axis", axis}, {"num_ranks", std::int64_t{mesh.size(axis)}}, {"dim", std::int64_t{dim}}, {"extent", joined_extent(node, 0)}};
  decision.note = fmt::format("the cache is split over {}: rows move where its blocks grow", axis);
  return decision;
}

}  // namespace tandem::sharding
