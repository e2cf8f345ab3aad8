#include "import/onnx/graph_reader.h"

#include <algorithm>

#include "core/check.h"
#include "graph/profile.h"
#include "import/onnx/placements.h"
#include "import/onnx/symbols.h"

namespace tandem::onnx_import {
namespace {

constexpr int kDepthLimit = 32;                 // branches and functions inside each other
constexpr std::int64_t kNodeLimit = 1'000'000;  // after inlining
constexpr std::int64_t kConstantLimit = 1024;   // elements of integers kept in the graph
constexpr std::int64_t kQuantizedLimit = 64;    // of those that may be quantised weights

std::string function_key(const std::string& domain, const std::string& name, const std::string& overload) {
  return domain_name(domain) + ":" + name + ":" + overload;
}

// Numbers that steer shapes and arithmetic go into the graph; what training made stays a weight that can be refitted.
bool is_small(const Tensor& t) {
  const std::int64_t limit = is_integer(t.dtype()) && bits(t.dtype()) <= 8 ? kQuantizedLimit : kConstantLimit;
  return t.count() <= 1 || (!is_float(t.dtype()) && t.count() <= limit);
}

std::string context_name(const Scope& scope, const onnx::NodeProto& node) {
  return scope.prefix + (!node.name().empty() ? node.name() : node.output_size() > 0 ? node.output(0) : std::string());
}

}  // namespace

GraphReader::GraphReader(Graph& graph, const ModelFile& file, const ImportOptions& options)
    : graph_(&graph), file_(&file), options_(&options), builder_(graph), tensors_(file) {
  for (const onnx::FunctionProto& f : file.model->functions()) functions_[function_key(f.domain(), f.name(), f.overload())] = &f;
}

void GraphReader::index_nodes(Scope& scope, const google::protobuf::RepeatedPtrField<onnx::NodeProto>& nodes) {
  scope.nodes = &nodes;
  scope.states.resize(static_cast<std::size_t>(nodes.size()), Scope::State::fresh);
  for (int i = 0; i < nodes.size(); ++i)
    for (const std::string& output : nodes[i].output())
      if (!output.empty() && (!scope.producers.emplace(output, i).second || scope.initializers.contains(output)))
        throw Error(ErrorCode::invalid_model, fmt::format("'{}' is written twice", output), label(nodes[i], scope.prefix));
}

Scope GraphReader::make_scope(const onnx::GraphProto& graph, Scope* parent, const Opsets& opsets) {
  Scope scope;
  scope.parent = parent;
  scope.opsets = &opsets;
  if (parent) {
    scope.bindings = parent->bindings;
    scope.depth = parent->depth + 1;
  }
  for (const onnx::TensorProto& t : graph.initializer())
    if (!scope.initializers.emplace(t.name(), &t).second) fail(ErrorCode::invalid_model, "initialiser '{}' is given twice", t.name());
  for (const onnx::SparseTensorProto& t : graph.sparse_initializer()) scope.sparse.insert(t.values().name());
  index_nodes(scope, graph.node());
  return scope;
}

// An input that has an initialiser is a default that nobody overrides: a weight.
void GraphReader::add_inputs(Scope& scope) {
  std::vector<const onnx::ValueInfoProto*> inputs;
  for (const onnx::ValueInfoProto& input : file_->model->graph().input())
    if (!scope.initializers.contains(input.name())) inputs.push_back(&input);
  Symbols symbols(inputs);
  std::vector<std::pair<std::string, Type>> types;
  for (const onnx::ValueInfoProto* input : inputs) types.emplace_back(input->name(), symbols.type_of(*input));
  graph_->profiles = profiles_of(types, ranges_of_profiles());
  for (const auto& [name, type] : types) {
    if (name.empty() || scope.values.contains(name) || scope.producers.contains(name))
      fail(ErrorCode::invalid_model, "input '{}' has no name of its own", name);
    scope.values[name] = graph_->add_input(name, type);
  }
}

std::vector<bool> GraphReader::needed_nodes(const Scope& scope) const {
  std::vector<bool> needed(scope.states.size(), false);
  std::vector<int> open;
  const auto ask = [&](const std::string& name) {
    const auto found = scope.producers.find(name);
    if (found == scope.producers.end() || needed[static_cast<std::size_t>(found->second)]) return;
    needed[static_cast<std::size_t>(found->second)] = true;
    open.push_back(found->second);
  };
  for (const onnx::ValueInfoProto& output : file_->model->graph().output()) ask(output.name());
  while (!open.empty()) {
    const onnx::NodeProto& node = (*scope.nodes)[open.back()];
    open.pop_back();
    for (const std::string& input : node.input()) ask(input);
  }
  return needed;
}

void GraphReader::run() {
  const onnx::GraphProto& proto = file_->model->graph();
  Scope scope = make_scope(proto, nullptr, file_->opsets);
  add_inputs(scope);
  const std::vector<bool> needed = needed_nodes(scope);
  for (std::size_t i = 0; i < needed.size(); ++i)
    if (needed[i]) produce(scope, static_cast<int>(i));
  if (proto.output().empty()) fail(ErrorCode::invalid_model, "the model has no outputs");
  std::set<std::string> names;
  for (const onnx::ValueInfoProto& output : proto.output()) {
    if (output.name().empty() || !names.insert(output.name()).second)
      fail(ErrorCode::invalid_model, "output '{}' has no name of its own", output.name());
    graph_->outputs().push_back({output.name(), require(scope, output.name())});
  }
  place(scope);
  graph_->erase_dead();
  settle_defaults(*graph_, ranges_of_profiles());
}

std::vector<InputRanges> GraphReader::ranges_of_profiles() const {
  std::vector<InputRanges> all{options_->shapes};
  all.insert(all.end(), options_->further_shapes.begin(), options_->further_shapes.end());
  return all;
}

// Values between inputs and outputs get the names under which the file places them.
void GraphReader::place(Scope& scope) {
  Module& module = graph_->module();
  module.placements = read_placements(*file_->model, options_->mesh, module.notices);
  for (const auto& [name, text] : module.placements)
    if (const auto found = scope.values.find(name);
        found != scope.values.end() && found->second && found->second->producer() && !found->second->producer()->is("Constant"))
      graph_->rename(*found->second, name);
  // What is small is a constant that every rank holds.
  std::erase_if(module.placements, [&](const auto& placement) {
    const auto found = scope.values.find(placement.first);
    const bool constant =
        found != scope.values.end() && found->second && found->second->producer() && found->second->producer()->is("Constant");
    if (constant && placement.second != "same")
      fail(ErrorCode::unsupported, "'{}' is placed as {}, but it is a small constant, which every rank holds whole", placement.first,
           placement.second);
    return constant;
  });
}

Value* GraphReader::require(Scope& scope, const std::string& name) {
  if (name.empty()) return nullptr;
  if (const auto found = scope.values.find(name); found != scope.values.end()) return found->second;
  if (const auto found = scope.initializers.find(name); found != scope.initializers.end())
    return scope.values[name] = initializer(scope.prefix + name, *found->second);
  if (scope.sparse.contains(name)) fail(ErrorCode::unsupported, "sparse initialiser '{}' is not supported", name);
  if (const auto found = scope.producers.find(name); found != scope.producers.end()) {
    produce(scope, found->second);
    if (const auto made = scope.values.find(name); made != scope.values.end()) return made->second;
    const onnx::NodeProto& node = (*scope.nodes)[found->second];
    throw Error(ErrorCode::unsupported, fmt::format("its output '{}' is not supported", name), label(node, scope.prefix));
  }
  if (scope.parent) return require(*scope.parent, name);
  fail(ErrorCode::invalid_model, "'{}' is written by no node", name);
}

// Depth first without recursion: files may list nodes in any order, and chains are long.
void GraphReader::produce(Scope& scope, int index) {
  using State = Scope::State;
  std::vector<int> stack{index};
  while (!stack.empty()) {
    const int top = stack.back();
    State& state = scope.states[static_cast<std::size_t>(top)];
    const onnx::NodeProto& node = (*scope.nodes)[top];
    if (state == State::done) {
      stack.pop_back();
      continue;
    }
    const bool first_visit = state == State::fresh;
    state = State::open;
    bool waits = false;
    for (auto input = node.input().rbegin(); input != node.input().rend(); ++input) {
      const auto producer = scope.producers.find(*input);
      if (producer == scope.producers.end()) continue;
      const State theirs = scope.states[static_cast<std::size_t>(producer->second)];
      if (theirs == State::done) continue;
      if (theirs == State::open || !first_visit)
        throw Error(ErrorCode::invalid_model, fmt::format("its input '{}' depends on its own output", *input), label(node, scope.prefix));
      stack.push_back(producer->second);
      waits = true;
    }
    if (waits) continue;
    convert(scope, node);
    scope.states[static_cast<std::size_t>(top)] = State::done;
    stack.pop_back();
  }
}

void GraphReader::convert(Scope& scope, const onnx::NodeProto& node) {
  try {
    if (++converted_ > kNodeLimit) fail(ErrorCode::unsupported, "more than {} nodes after inlining", kNodeLimit);
    if (keep_as_weight(scope, node)) return;
    std::vector<Value*> inputs;
    for (const std::string& input : node.input()) inputs.push_back(require(scope, input));
    builder_.set_context(context_name(scope, node));
    const auto function = functions_.find(function_key(node.domain(), node.op_type(), node.overload()));
    if (function != functions_.end()) inline_function(scope, node, *function->second, inputs);
    else if (node.op_type() == "If" && domain_name(node.domain()).empty()) import_if(scope, node, inputs.empty() ? nullptr : inputs[0]);
    else convert_by_rule(scope, node, std::move(inputs));
  } catch (const Error& error) {
    // Arithmetic that overflows is the model's fault here, not the caller's.
    const ErrorCode code = error.code() == ErrorCode::invalid_argument ? ErrorCode::invalid_model : error.code();
    throw Error(code, error.message(), error.node().empty() ? label(node, scope.prefix) : error.node());
  }
}

void GraphReader::convert_by_rule(Scope& scope, const onnx::NodeProto& node, std::vector<Value*> inputs) {
  ForeignNode foreign = read_node(node, *scope.opsets, scope.bindings, tensors_);
  const OnnxRule& rule = find_rule(graph_->module().ops(), foreign);
  foreign.name = context_name(scope, node);
  foreign.world_size = options_->world_size;
  foreign.inputs = std::move(inputs);
  const std::vector<Value*> results = rule.import(foreign, builder_);
  for (std::size_t i = 0; i < foreign.outputs.size() && i < results.size(); ++i)
    if (!foreign.outputs[i].empty() && results[i]) scope.values[foreign.outputs[i]] = results[i];
}

// Exporters also write weights as Constant nodes: those keep their name and can be refitted like initialisers.
bool GraphReader::keep_as_weight(Scope& scope, const onnx::NodeProto& node) {
  if (node.op_type() != "Constant" || !domain_name(node.domain()).empty() || node.output_size() != 1) return false;
  const onnx::AttributeProto* value = find_attribute(node, "value", scope.bindings);
  if (!value || !value->has_t() || is_small(tensors_.read(value->t()))) return false;
  builder_.set_context(context_name(scope, node));
  scope.values[node.output(0)] = initializer(scope.prefix + node.output(0), value->t());
  return true;
}

Value* GraphReader::initializer(const std::string& name, const onnx::TensorProto& proto) {
  Tensor tensor = tensors_.read(proto);
  if (is_small(tensor)) return builder_.constant(std::move(tensor));
  Module& module = graph_->module();
  std::string source = name;
  for (int i = 1; module.has_source(source); ++i) source = fmt::format("{}.{}", name, i);
  const RecipePtr recipe = Recipe::from_source(source, tensor.dtype(), tensor.shape());
  module.add_source(source, std::move(tensor));
  return graph_->weight_value(module.add_weight(source, recipe));
}

// Only the branch that is taken is looked at: exporters leave others that do not even type-check.
void GraphReader::import_if(Scope& scope, const onnx::NodeProto& node, Value* predicate) {
  if (scope.depth >= kDepthLimit) fail(ErrorCode::unsupported, "branches and functions are nested more than {} deep", kDepthLimit);
  if (!predicate) fail(ErrorCode::invalid_model, "the predicate is missing");
  const auto contents = builder_.dims_of(predicate);
  if (!contents || contents->size() != 1 || !contents->at(0).is_constant())
    fail(ErrorCode::unsupported, "the predicate '{}' depends on data; only an If that is decided before the run is supported",
         predicate->name());
  const std::string name = contents->at(0).constant() != 0 ? "then_branch" : "else_branch";
  const onnx::AttributeProto* branch = find_attribute(node, name, scope.bindings);
  if (!branch || !branch->has_g()) fail(ErrorCode::invalid_model, "there is no {}", name);
  if (branch->g().output_size() < node.output_size())
    fail(ErrorCode::invalid_model, "{} has {} outputs for {}", name, branch->g().output_size(), node.output_size());
  Scope inner = make_scope(branch->g(), &scope, *scope.opsets);
  inner.prefix = context_name(scope, node) + "/";
  for (int i = 0; i < node.output_size(); ++i)
    if (!node.output(i).empty()) scope.values[node.output(i)] = require(inner, branch->g().output(i).name());
}

void GraphReader::inline_function(Scope& scope, const onnx::NodeProto& node, const onnx::FunctionProto& function,
                                  const std::vector<Value*>& inputs) {
  if (scope.depth >= kDepthLimit) fail(ErrorCode::unsupported, "branches and functions are nested more than {} deep", kDepthLimit);
  if (function.output_size() < node.output_size() || function.input_size() < static_cast<int>(inputs.size()))
    fail(ErrorCode::invalid_model, "function {} has {} inputs and {} outputs, the call {} and {}", function.name(), function.input_size(),
         function.output_size(), inputs.size(), node.output_size());
  const Opsets opsets = read_opsets(function.opset_import());
  Scope inner;
  inner.opsets = &opsets;
  inner.depth = scope.depth + 1;
  inner.prefix = context_name(scope, node) + "/";
  for (const onnx::AttributeProto& a : function.attribute_proto()) inner.bindings[a.name()] = &a;
  for (const onnx::AttributeProto& a : node.attribute()) inner.bindings[a.name()] = find_attribute(node, a.name(), scope.bindings);
  std::erase_if(inner.bindings, [](const auto& b) { return b.second == nullptr; });
  for (int i = 0; i < function.input_size(); ++i)
    inner.values[function.input(i)] = i < static_cast<int>(inputs.size()) ? inputs[static_cast<std::size_t>(i)] : nullptr;
  index_nodes(inner, function.node());
  for (int i = 0; i < node.output_size(); ++i)
    if (!node.output(i).empty()) scope.values[node.output(i)] = require(inner, function.output(i));
}

}  // namespace tandem::onnx_import
