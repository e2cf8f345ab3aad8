// From a network to an engine.
#include <algorithm>

#include "api/build/extents.h"
#include "api/build/network_state.h"
#include "api/build/plain_run.h"
#include "build/build.h"
#include "core/check.h"
#include "core/collective.h"
#include "graph/profile.h"
#include "graph/text.h"
#include "tandem/network.h"

namespace tandem {
namespace {

std::int64_t ranks_of(const Node& node) { return node.attributes.has("num_ranks") ? node.attributes.integer("num_ranks") : 1; }

RankLists groups_of(const Node& node) { return node.attributes.has("groups") ? node.attributes.get<RankLists>("groups") : RankLists{}; }

// What one rank does alone changes nothing.
void remove_single_rank_collectives(Graph& graph) {
  for (Node* node : graph.node_list()) {
    if (!node->op().collective || node->results().size() != 1 || ranks_of(*node) != 1 || node->result()->type != node->operand(0)->type)
      continue;
    graph.replace_uses(node->result(), node->operand(0));
    graph.erase(*node);
  }
}

// All ranks of a program that is one rank's; nothing if it is no such program.
std::optional<Mesh> world_of(const NetworkState& state, const Graph& graph, const BuildOptions& options) {
  const Mesh asked = Mesh::parse(options.mesh);
  const auto agrees = [&](const Mesh& mesh) {
    if (!options.mesh.empty() && asked != mesh)
      fail(ErrorCode::mismatch, "the network is made for mesh {}, asked for is {}", mesh.to_string(), asked.to_string());
    if (options.ranks > 0 && options.ranks != mesh.size())
      fail(ErrorCode::mismatch, "the network is made for mesh {} of {} ranks, asked for are {}", mesh.to_string(), mesh.size(),
           options.ranks);
    return mesh;
  };
  if (state.for_mesh) return agrees(state.module.mesh);
  const auto nodes = graph.node_list();
  const auto first = std::ranges::find_if(nodes, [](const Node* n) { return communicates(*n); });
  if (first == nodes.end()) return std::nullopt;
  if (!options.mesh.empty()) {
    if (options.ranks > 0 && options.ranks != asked.size())
      fail(ErrorCode::mismatch, "mesh {} has {} ranks, not {}", asked.to_string(), asked.size(), options.ranks);
    return asked;
  }
  if (options.ranks > 0) return Mesh({{"rank", options.ranks}});
  for (const Node* node : nodes)
    if (communicates(*node) && groups_of(*node).empty()) return Mesh({{"rank", static_cast<int>(ranks_of(*node))}});
  throw Error(ErrorCode::invalid_argument, "the network communicates within groups only: say at build how many ranks there are",
              (*first)->label());
}

void check_ranks(const Node& node, const Mesh& world) {
  if (!communicates(node)) return;
  const std::int64_t ranks = ranks_of(node);
  const std::string& axis = node.attributes.text("axis");
  const RankLists groups = groups_of(node);
  const std::int64_t all = axis.empty() ? world.size() : world.has(axis) ? world.size(axis) : -1;
  if (all < 0) throw Error(ErrorCode::invalid_argument, fmt::format("axis '{}' is not in mesh {}", axis, world.to_string()), node.label());
  if (groups.empty() && ranks != all)
    throw Error(ErrorCode::mismatch,
                fmt::format("num_ranks is {}, but {} has {} ranks", ranks, axis.empty() ? "the world" : "axis '" + axis + "'", all),
                node.label());
  for (const auto& group : groups)
    for (const std::int64_t rank : group)
      if (rank >= world.size())
        throw Error(ErrorCode::mismatch, fmt::format("a group names rank {}, but there are {} ranks", rank, world.size()), node.label());
  if (groups.empty() || node.operand(0)->type == node.result()->type) return;
  for (std::int64_t rank = 0; rank < world.size(); ++rank)
    if (std::ranges::none_of(groups, [rank](const auto& group) { return std::ranges::find(group, rank) != group.end(); }))
      throw Error(ErrorCode::invalid_argument,
                  fmt::format("it changes the shape, so rank {}, which is in none of its groups, has no value for it", rank), node.label());
}

Type type_of(const NetworkState& state, const Value& input) {
  const auto placed = state.inputs.find(input.name());
  return placed == state.inputs.end() ? input.type : placed->second.global;
}

void set_profiles(const NetworkState& state, Graph& graph, const std::vector<InputRanges>& given) {
  NamedTypes types;
  for (const auto& input : graph.inputs()) types.emplace_back(input->name(), type_of(state, *input));
  graph.profiles = profiles_of(types, given);
  for (std::size_t p = 0; p < given.size(); ++p) {
    std::set<std::string> bound;  // by `given`, which goes before what the network says
    for (const auto& [input, type] : types)
      for (const Dim& dim : type.dims)
        if (given[p].contains(input) && dim.is_symbol()) bound.insert(dim.to_string());
    for (const std::string& symbol : state.ranged)
      if (graph.profiles[p].contains(symbol) && !bound.contains(symbol)) graph.profiles[p][symbol] = state.graph.profiles[0].at(symbol);
  }
}

}  // namespace

Engine build(const Network& network, const BuildOptions& options) {
  const NetworkState& state = network.state();
  if (state.graph.outputs().empty()) fail(ErrorCode::invalid_argument, "the network has no outputs");
  Draft draft{.module = clone(state.module), .name = "the network", .inputs = state.inputs, .outputs = state.outputs};
  Graph& graph = draft.module->main();
  remove_single_rank_collectives(graph);
  graph.erase_dead();
  draft.module->erase_unused_weights();
  draft.module->refittable = options.refittable;
  draft.world = world_of(state, graph, options);
  if (draft.world) {
    if (!options.io.empty())
      fail(ErrorCode::invalid_argument, "the network is the program of one rank: place its inputs and outputs where they are added");
    for (const auto& node : graph.nodes()) check_ranks(*node, *draft.world);
  }
  const std::vector<InputRanges> given = ranges_of_profiles(options);
  set_profiles(state, graph, given);
  std::vector<Type> inputs;
  for (const auto& input : graph.inputs()) inputs.push_back(type_of(state, *input));
  check_symbols(graph, inputs, draft.world ? *draft.world : Mesh());
  require_equal_extents(graph);
  settle_defaults(graph, given, state.ranged);
  std::vector<Draft> drafts;
  drafts.push_back(std::move(draft));
  return finish(std::move(drafts), options);
}

}  // namespace tandem
