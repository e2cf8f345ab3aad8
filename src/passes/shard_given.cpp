// Placements that were asked for value by value, by --io or by the annotations of the imported file.
#include <algorithm>
#include <cctype>
#include <numeric>

#include "core/check.h"
#include "passes/shard.h"

namespace tandem::sharding {
namespace {

// The source that a recipe only transposes and casts, and per dimension of the value the source's one.
struct Origin {
  const Recipe* source = nullptr;
  std::vector<std::int64_t> dims;
};

Origin origin_of(const Recipe& recipe) {
  Origin origin;
  origin.dims.resize(recipe.shape.size());
  std::iota(origin.dims.begin(), origin.dims.end(), 0);
  const Recipe* at = &recipe;
  while (at->kind == Recipe::Kind::transpose || at->kind == Recipe::Kind::cast) {
    if (at->kind == Recipe::Kind::transpose)
      for (std::int64_t& d : origin.dims) d = at->permutation.at(static_cast<std::size_t>(d));
    at = at->inputs.at(0).get();
  }
  if (at->kind == Recipe::Kind::source) origin.source = at;
  return origin;
}

void place_weight(const Value& value, const ShardOptions& options, Seeds& seeds) {
  std::vector<std::string> sources;
  value.weight()->recipe->collect_sources(sources);
  for (const std::string& name : sources) {
    const auto given = options.io.find(name);
    if (given == options.io.end()) continue;
    const Origin origin = origin_of(*value.weight()->recipe);
    if (!origin.source)
      fail(ErrorCode::unsupported, "weight '{}' cannot be placed: it is cut up or joined with others before the model is split", name);
    const Type type{origin.source->dtype, std::vector<Dim>(origin.source->shape.begin(), origin.source->shape.end())};
    const Sharding of_source = parse_placement(name, given->second, type, options.mesh);
    Sharding s;
    for (const std::int64_t d : origin.dims) s.dims.push_back(of_source.dim(static_cast<int>(d)));
    seeds.values[&value] = s.normalized(options.mesh);
  }
}

}  // namespace

Sharding parse_placement(const std::string& name, const std::string& text, const Type& type, const Mesh& mesh) {
  if (text == "same") return {};
  if (text == "local")
    throw Error(ErrorCode::unsupported, "'local' values exist only in models that were sharded by hand; say same or DIM:AXIS", name);
  Sharding s;
  s.dims.resize(type.dims.size());
  for (std::size_t at = 0; at <= text.size();) {
    const std::size_t end = std::min(text.find(',', at), text.size());
    const std::string part = text.substr(at, end - at);
    at = end + 1;
    const std::size_t colon = part.find(':');
    const bool number = colon != std::string::npos && colon > 0 && colon < 3 &&
                        std::all_of(part.begin(), part.begin() + static_cast<std::ptrdiff_t>(colon), ::isdigit);
    if (!number) fail(ErrorCode::invalid_argument, "placement '{}' of '{}': expected same or DIM:AXIS[,DIM:AXIS…]", text, name);
    const std::size_t dim = std::stoul(part.substr(0, colon));
    const std::string axis = part.substr(colon + 1);
    if (dim >= type.dims.size())
      fail(ErrorCode::invalid_argument, "placement '{}' of '{}': it has {} dimensions", text, name, type.dims.size());
    if (!mesh.has(axis))
      fail(ErrorCode::invalid_argument, "placement '{}' of '{}': mesh {} has no axis '{}'", text, name, mesh.to_string(), axis);
    if (s.mentions(axis)) fail(ErrorCode::invalid_argument, "placement '{}' of '{}' names an axis twice", text, name);
    if (s.dims[dim].empty()) s.dims[dim] = {{type.dims[dim], {}}};
    s.dims[dim][0].axes.push_back(axis);
  }
  return s.normalized(mesh);
}

void place_given(const Graph& graph, const ShardOptions& options, Seeds& seeds) {
  if (options.io.empty()) return;
  for (const auto& input : graph.inputs())
    if (const auto given = options.io.find(input->name()); given != options.io.end())
      seeds.values[input.get()] = parse_placement(input->name(), given->second, input->type, options.mesh);
  for (const auto& weight : graph.weight_values()) place_weight(*weight, options, seeds);
}

bool is_given(const ShardOptions& options, const std::string& axis) {
  const auto mentions = [&](const std::string& text) {
    for (std::size_t at = text.find(":" + axis); at != std::string::npos; at = text.find(":" + axis, at + 1))
      if (const std::size_t end = at + 1 + axis.size(); end == text.size() || text[end] == ',') return true;
    return false;
  };
  return std::ranges::any_of(options.io, [&](const auto& entry) { return mentions(entry.second); });
}

void check_given(const Module& module, const ShardOptions& options, std::vector<std::string>& notices) {
  const auto is_placed = [&](const Graph& graph, const std::string& name) {
    for (const auto& node : graph.nodes())
      for (const auto& result : node->results())
        if (result->name() == name) return true;
    return std::ranges::any_of(graph.inputs(), [&](const auto& input) { return input->name() == name; }) ||
           std::ranges::any_of(graph.outputs(), [&](const Graph::Output& output) { return output.name == name; });
  };
  for (const auto& [name, text] : options.io) {
    if (module.has_source(name) || std::ranges::any_of(module.graphs(), [&](const auto& graph) { return is_placed(*graph, name); }))
      continue;
    if (!module.placements.contains(name))
      fail(ErrorCode::invalid_argument, "placement of '{}': the model has no such input, output or weight", name);
    notices.push_back(fmt::format(
        "the file places '{}' ({}), which is no value of its own any more once the model is simplified: it lies as its neighbours do", name,
        text));
  }
}

}  // namespace tandem::sharding
