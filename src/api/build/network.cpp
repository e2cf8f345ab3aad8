#include "tandem/network.h"

#include <algorithm>

#include "api/build/network_state.h"
#include "api/build/op_attributes.h"
#include "api/run/engine_data.h"
#include "core/check.h"
#include "graph/profile.h"
#include "graph/text.h"
#include "import/onnx/import.h"
#include "passes/shard.h"

namespace tandem {
namespace {

constexpr std::int64_t kCopyLimit = 1024;  // elements of a constant that become part of the program

bool is_taken(const Graph& graph, const std::string& name) {
  const auto named = [&](const std::unique_ptr<tandem::Value>& v) { return v->name() == name; };
  return std::ranges::any_of(graph.inputs(), named) || std::ranges::any_of(graph.weight_values(), named) ||
         std::ranges::any_of(graph.nodes(), [&](const std::unique_ptr<Node>& n) { return std::ranges::any_of(n->results(), named); });
}

void check_extents(const std::string& name, const std::vector<Dim>& dims) {
  for (const Dim& d : dims)
    if (d.is_constant() && d.constant() < 0) fail(ErrorCode::invalid_argument, "'{}' has a negative extent in {}", name, to_string(dims));
}

// How the caller sees a value of this global type. Nothing where each rank has its own.
std::optional<Placement> placement_of(const NetworkState& state, const std::string& name, const std::string& text, const Type& global) {
  if (text.empty() || text == "local") return std::nullopt;
  if (!state.for_mesh)
    fail(ErrorCode::invalid_argument,
         "'{}' is placed as '{}', but the network has no mesh: make it for one, or place its inputs and outputs at build", name, text);
  return Placement{global, sharding::parse_placement(name, text, global, state.module.mesh)};
}

Sharding own_of_each_rank(const Mesh& mesh) {
  Sharding own;
  for (const MeshAxis& axis : mesh.axes()) own.varying.push_back(axis.name);
  return own;
}

// The type that a caller sees where a rank has a block of it.
Type whole_type(const Type& local, const std::string& name, const std::string& placement, const Mesh& mesh) {
  Type whole = local;
  const Sharding blocks = sharding::parse_placement(name, placement, local, mesh);
  for (int d = 0; d < local.rank(); ++d)
    for (const Factor& factor : blocks.dim(d))
      whole.dims[static_cast<std::size_t>(d)] = whole.dims[static_cast<std::size_t>(d)] * Dim(split_count(factor, mesh));
  return whole;
}

ImportOptions import_options(const OnnxOptions& options) { return {.world_size = options.ranks, .refittable = options.refittable}; }

}  // namespace

Network::Network(const std::string& mesh) {
  auto module = std::make_unique<Module>(all_ops());
  module->add_graph("main");
  state_ = std::make_shared<NetworkState>(std::move(module));
  state_->module.mesh = Mesh::parse(mesh);
  state_->for_mesh = !mesh.empty();
  state_->graph.profiles.resize(1);
}

Network Network::copy() const {
  auto made = std::make_shared<NetworkState>(clone(state_->module));
  made->for_mesh = state_->for_mesh;
  made->inputs = state_->inputs;
  made->outputs = state_->outputs;
  made->ranged = state_->ranged;
  return Network(std::move(made));
}

Network Network::from_onnx(const std::string& path, const OnnxOptions& options) {
  return Network(std::make_shared<NetworkState>(import_onnx(std::filesystem::path(path), import_options(options))));
}

Network Network::from_onnx(const Array& bytes, const OnnxOptions& options) {
  const Tensor model = to_tensor(bytes);
  return Network(std::make_shared<NetworkState>(import_onnx(model.bytes(), options.folder, import_options(options))));
}

std::string Network::mesh() const { return state_->module.mesh.to_string(); }

const std::string& Network::Value::name() const {
  check(value_ != nullptr, "an absent operand has no name");
  return value_->name();
}
DType Network::Value::dtype() const {
  check(value_ != nullptr, "an absent operand has no dtype");
  return value_->type.dtype;
}
Extents Network::Value::shape() const {
  check(value_ != nullptr, "an absent operand has no shape");
  return to_extents(value_->type.dims);
}
int Network::Value::rank() const {
  check(value_ != nullptr, "an absent operand has no rank");
  return value_->type.rank();
}

std::string Network::Value::op() const { return value_ && value_->producer() ? std::string(value_->producer()->op().name) : std::string(); }

void Network::symbol(const std::string& name, std::int64_t min, std::int64_t opt, std::int64_t max) {
  if (!Dim::symbol(name).is_symbol() || name.starts_with('@')) fail(ErrorCode::invalid_argument, "'{}' is no symbol", name);
  if (min < 0 || min > opt || opt > max)
    fail(ErrorCode::invalid_argument, "symbol '{}': range {}:{}:{} is not ordered 0 ≤ min ≤ opt ≤ max", name, min, opt, max);
  state_->graph.profiles[0][name] = {min, opt, max};
  state_->ranged.insert(name);
}

Network::Value Network::input(const std::string& name, DType dtype, const Extents& shape, const std::string& placement) {
  Graph& graph = state_->graph;
  if (name.empty() || is_taken(graph, name))
    fail(ErrorCode::invalid_argument, "an input cannot be called '{}': {}", name, name.empty() ? "it needs a name" : "the name is taken");
  const Type global{dtype, to_dims(shape)};
  check_extents(name, global.dims);
  std::set<std::string> symbols;
  for (const Dim& dim : global.dims) dim.collect_symbols(symbols);
  for (const std::string& symbol : symbols)
    if (symbol.starts_with('@')) fail(ErrorCode::invalid_argument, "input '{}' cannot depend on the rank, but holds {}", name, symbol);
  const auto placed = placement_of(*state_, name, placement, global);
  tandem::Value* value = graph.add_input(name, placed ? local_type(global, placed->sharding, state_->module.mesh) : global);
  if (state_->for_mesh) value->sharding = placed ? placed->sharding : own_of_each_rank(state_->module.mesh);
  if (placed) state_->inputs[name] = *placed;
  for (const std::string& symbol : symbols) graph.profiles[0].try_emplace(symbol, default_range(symbol));
  return {state_, value};
}

Network::Value Network::weight(const std::string& name, const Array& data, const std::string& placement) {
  Module& module = state_->module;
  if (name.empty() || module.has_source(name))
    fail(ErrorCode::invalid_argument, "a weight cannot be called '{}': {}", name, name.empty() ? "it needs a name" : "the name is taken");
  const Tensor tensor = shared_tensor(data, fmt::format("weight '{}'", name));
  const Type global{tensor.dtype(), {tensor.shape().begin(), tensor.shape().end()}};
  const auto placed = placement_of(*state_, name, placement, global);
  RecipePtr recipe = Recipe::from_source(name, tensor.dtype(), tensor.shape());
  if (placed) recipe = shard_recipe(recipe, placed->sharding, module.mesh);
  module.add_source(name, tensor);
  tandem::Value* value = state_->graph.weight_value(module.add_weight(name, recipe));
  if (placed) value->sharding = placed->sharding;
  return {state_, value};
}

Network::Value Network::constant(const Array& data) {
  if (element_count(data.shape) <= kCopyLimit) return add("Constant", {}, {{"value", data}});
  Module& module = state_->module;
  std::string name = "constant";
  for (int i = 1; module.has_source(name); ++i) name = fmt::format("constant.{}", i);
  const Tensor tensor = shared_tensor(data, "a constant");
  module.add_source(name, tensor);
  return {state_, state_->graph.weight_value(module.add_weight(name, Recipe::from_source(name, tensor.dtype(), tensor.shape()), true))};
}

Network::Value Network::scalar(DType dtype, double value) {
  const auto held = std::make_shared<Tensor>(Tensor::of(dtype, {}, std::vector<double>{value}));
  return constant({dtype, {}, std::shared_ptr<const std::byte>(held, held->data())});
}

void Network::output(const std::string& name, const Value& value, const std::string& placement) {
  tandem::Value* of = own({value}, "an output").at(0);
  if (!of) fail(ErrorCode::invalid_argument, "output '{}' is an absent value", name);
  const auto same_name = [&](const Graph::Output& o) { return o.name == name; };
  if (name.empty() || std::ranges::any_of(state_->graph.outputs(), same_name))
    fail(ErrorCode::invalid_argument, "an output cannot be called '{}': {}", name, name.empty() ? "it needs a name" : "the name is taken");
  auto placed = placement_of(*state_, name, placement, of->type);
  if (placed && !placed->sharding.is_same()) {
    const Type whole = whole_type(of->type, name, placement, state_->module.mesh);
    placed = placement_of(*state_, name, placement, whole);
  }
  state_->graph.outputs().push_back({name, of});
  if (placed) state_->outputs[name] = *placed;
}

void Network::remove_output(const std::string& name) {
  if (std::erase_if(state_->graph.outputs(), [&](const Graph::Output& o) { return o.name == name; }) == 0)
    fail(ErrorCode::invalid_argument, "there is no output '{}'", name);
  state_->outputs.erase(name);
}

std::vector<Network::Value> Network::inputs() const {
  std::vector<Value> values;
  for (const auto& input : state_->graph.inputs()) values.push_back({state_, input.get()});
  return values;
}

std::vector<std::pair<std::string, Network::Value>> Network::outputs() const {
  std::vector<std::pair<std::string, Value>> values;
  for (const Graph::Output& output : state_->graph.outputs()) values.emplace_back(output.name, Value(state_, output.value));
  return values;
}

std::string Network::to_text() const { return print(state_->module); }

}  // namespace tandem
