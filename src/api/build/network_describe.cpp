// What a network holds, as JSON.
#include <map>
#include <nlohmann/json.hpp>

#include "api/build/network_state.h"
#include "api/run/describe_program.h"
#include "graph/text_values.h"
#include "tandem/network.h"

namespace tandem {
namespace {

using Json = nlohmann::json;

constexpr std::int64_t kShownElements = 8;  // of a tensor among the attributes

class Description {
 public:
  explicit Description(const NetworkState& state) : state_(state) {}

  Json made() {
    const Graph& graph = state_.graph;
    Json out = {{"mesh", state_.for_mesh ? state_.module.mesh.to_string() : ""}, {"notices", state_.module.notices}};
    for (const char* key : {"axes", "inputs", "outputs", "nodes"}) out[key] = Json::array();
    if (state_.for_mesh)
      for (const MeshAxis& axis : state_.module.mesh.axes()) out["axes"].push_back({{"name", axis.name}, {"size", axis.size}});
    for (const auto& input : graph.inputs()) {
      add(*input, "input");
      out["inputs"].push_back(port(input->name(), *input, state_.inputs));
    }
    for (const auto& weight : graph.weight_values()) add(*weight, "weight");
    for (const auto& node : graph.nodes()) out["nodes"].push_back(described(*node));
    for (const Graph::Output& output : graph.outputs()) out["outputs"].push_back(port(output.name, *output.value, state_.outputs));
    out["values"] = std::move(values_);
    return out;
  }

 private:
  static Json typed(const tandem::Value& value) {
    Json shape = Json::array();
    for (const Dim& dim : value.type.dims) shape.push_back(number_or_text(dim));
    return {{"dtype", to_string(value.type.dtype)}, {"shape", std::move(shape)}};
  }

  void add(const tandem::Value& value, const char* kind) {
    Json one = typed(value);
    one["name"] = value.name();
    one["kind"] = kind;
    if (!value.producer()) describe_sharding(one, value.sharding, value.type.rank());
    numbers_[&value] = values_.size();
    values_.push_back(std::move(one));
  }

  // As the caller gives or gets it; without a placement each rank has its own.
  Json port(const std::string& name, const tandem::Value& value, const std::map<std::string, Placement>& placed) const {
    Json out = typed(value);
    out["name"] = name;
    out["value"] = numbers_.at(&value);
    Sharding sharding;
    if (const auto found = placed.find(name); found != placed.end()) sharding = found->second.sharding;
    else if (state_.for_mesh)
      for (const MeshAxis& axis : state_.module.mesh.axes()) sharding.varying.push_back(axis.name);
    describe_sharding(out, sharding, value.type.rank());
    return out;
  }

  Json described(const Node& node) {
    Json out = {{"op", node.op().name}, {"node", node.name()}, {"note", node.note}};
    for (const char* key : {"operands", "results"}) out[key] = Json::array();
    for (const tandem::Value* operand : node.operands()) out["operands"].push_back(operand ? Json(numbers_.at(operand)) : Json(-1));
    for (const auto& result : node.results()) {
      add(*result, "result");
      out["results"].push_back(numbers_.at(result.get()));
    }
    out["attributes"] = attributes(node);
    if (node.attributes.has("num_ranks") && node.attributes.integer("num_ranks") > 1) {
      out["ranks"] = node.attributes.integer("num_ranks");
      out["axis"] = node.attributes.has("axis") ? node.attributes.text("axis") : "";
      out["groups"] = node.attributes.has("groups") ? node.attributes.get<RankLists>("groups") : RankLists{};
    }
    return out;
  }

  // Those that are not what they are by default, as text.
  static Json attributes(const Node& node) {
    Json out = Json::object();
    const auto& fields = node.op().fields;
    for (std::size_t i = 0; i < fields.size(); ++i) {
      const AttributeValue& value = node.attributes.values()[i];
      if (equal(value, fields[i].initial)) continue;
      const auto* tensor = std::get_if<Tensor>(&value);
      const bool large = tensor && tensor->count() > kShownElements;
      out[fields[i].name] = large ? fmt::format("{}{}", to_string(tensor->dtype()), to_string(tensor->shape())) : print_value(value);
    }
    return out;
  }

  const NetworkState& state_;
  Json values_ = Json::array();
  std::map<const tandem::Value*, std::size_t> numbers_;
};

}  // namespace

std::string Network::describe() const { return Description(*state_).made().dump(); }

}  // namespace tandem
