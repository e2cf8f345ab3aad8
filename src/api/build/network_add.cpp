// Adding nodes to a network, and changing their attributes.
#include <algorithm>
#include <cmath>

#include "api/build/network_state.h"
#include "api/build/op_attributes.h"
#include "core/check.h"
#include "core/collective.h"
#include "graph/measured.h"
#include "tandem/network.h"

namespace tandem {
namespace {

// A wrong use of the API, whatever code the op's rules gave it.
[[noreturn]] void refuse(const Error& error, const std::string& label) {
  const ErrorCode code = error.code() == ErrorCode::invalid_model ? ErrorCode::invalid_argument : error.code();
  throw Error(code, error.message(), label);
}

std::string label_of(std::string_view op, const std::string& name) {
  return name.empty() ? std::string(op) : fmt::format("{} \"{}\"", op, name);
}

const Field& field_of(const OpDef& op, const std::string& name) {
  const auto found = std::ranges::find(op.fields, name, &Field::name);
  if (found != op.fields.end()) return *found;
  std::vector<std::string_view> names;
  for (const Field& field : op.fields) names.push_back(field.name);
  fail(ErrorCode::invalid_argument, "there is no attribute '{}'; there {}", name,
       names.empty() ? "are none" : fmt::format("are {}", fmt::join(names, ", ")));
}

std::string expected_operands(const OpDef& op) {
  if (op.operands.empty()) return "none";
  std::string text;
  for (std::size_t i = 0; i < op.operands.size(); ++i) {
    const bool optional = static_cast<int>(i) >= op.min_operands;
    text += fmt::format("{}{}{}", i == 0 ? "" : ", ", op.operands[i].name, optional ? " (optional)" : "");
  }
  return op.max_operands < 0 ? text + ", …" : text;
}

void check_operands(const OpDef& op, const std::vector<Value*>& operands) {
  const auto count = static_cast<int>(operands.size());
  if (count < op.min_operands || (op.max_operands >= 0 && count > op.max_operands))
    fail(ErrorCode::invalid_argument, "{} operands are given, expected {}", count, expected_operands(op));
  for (std::size_t i = 0; i < operands.size(); ++i)
    if (!operands[i] && (static_cast<int>(i) < op.min_operands || op.max_operands < 0))
      fail(ErrorCode::invalid_argument, "operand {} ('{}') is absent, expected {}", i,
           op.operands[std::min(i, op.operands.size() - 1)].name, expected_operands(op));
}

bool has_ranks(const OpDef& op) { return std::ranges::find(op.fields, "num_ranks", &Field::name) != op.fields.end(); }

// How many ranks a node's group has, by its axis, its groups or the network's mesh; nothing if they do not say.
std::optional<std::int64_t> ranks_said(const NetworkState& state, const OpDef& op, const Attributes& attributes) {
  const std::string& axis = attributes.text("axis");
  const RankLists groups = attributes.has("groups") ? attributes.get<RankLists>("groups") : RankLists{};
  const Mesh& mesh = state.module.mesh;
  if (!axis.empty() && !mesh.has(axis))
    fail(ErrorCode::invalid_argument, "axis '{}' is not in the network's mesh ({})", axis,
         state.for_mesh ? mesh.to_string() : "it has none");
  if (!axis.empty()) return mesh.size(axis);
  if (!groups.empty()) return static_cast<std::int64_t>(groups[0].size());
  if (op.collective && state.for_mesh) return mesh.size();
  return std::nullopt;
}

// Fills in num_ranks where it follows, and refuses another one.
void settle_ranks(const NetworkState& state, const OpDef& op, Attributes& attributes, bool given) {
  if (!has_ranks(op)) return;
  const auto said = ranks_said(state, op, attributes);
  const std::int64_t now = attributes.integer("num_ranks");
  if (said && given && now != *said && now != 1)
    fail(ErrorCode::invalid_argument, "num_ranks is {}, but axis, groups or mesh say {}", now, *said);
  if (said && !given) attributes.set("num_ranks", *said);
  if (!said && !given && op.collective)
    fail(ErrorCode::invalid_argument, "it is not said which ranks take part: give num_ranks or groups, or make the network for a mesh");
}

// One extent of -1 is what the others leave.
void fill_hole(const Type& from, Attributes& attributes) {
  std::vector<Dim> dims = attributes.dims("shape");
  const auto hole = std::ranges::find(dims, Dim(-1));
  if (hole == dims.end()) return;
  if (std::count(dims.begin(), dims.end(), Dim(-1)) > 1)
    fail(ErrorCode::invalid_argument, "shape {} has more than one -1", to_string(dims));
  const std::string shape = to_string(dims);
  *hole = 1;
  const Dim others = product(dims);
  const auto left = others == Dim(0) ? std::nullopt : product(from.dims).exact_divide(others);
  if (!left) fail(ErrorCode::invalid_argument, "cannot reshape {} to {}: -1 is no whole number", to_string(from.dims), shape);
  *hole = *left;
  attributes.set("shape", dims);
}

NamedAttributes checked_attributes(const NetworkState& state, const OpDef& op, const std::vector<Value*>& operands,
                                   const OpAttributes& given) {
  Attributes attributes(&op.fields);
  for (const auto& [name, value] : given) attributes.set(name, to_graph(field_of(op, name), value));
  settle_ranks(state, op, attributes, given.contains("num_ranks"));
  if (op.name == "Reshape") fill_hole(operands.at(0)->type, attributes);
  if (measures(attributes) && attributes.text("symbol").empty())
    attributes.set("symbol", fresh_measured_symbol(state.graph, op_info(std::string(op.name)).method));
  NamedAttributes named;
  for (std::size_t i = 0; i < op.fields.size(); ++i) named.emplace_back(op.fields[i].name, attributes.values()[i]);
  return named;
}

// The node and those that follow it.
std::vector<Node*> nodes_from(const Graph& graph, const Node& first) {
  std::vector<Node*> all = graph.node_list();
  all.erase(all.begin(), std::ranges::find(all, &first));
  return all;
}

Node& producer_of(const Value* value) {
  if (!value || !value->producer())
    fail(ErrorCode::invalid_argument, "'{}' is no result of a node", value ? value->name() : "an absent value");
  return *value->producer();
}

}  // namespace

std::vector<Value*> Network::own(const std::vector<Value>& values, const std::string& what) const {
  std::vector<tandem::Value*> own;
  for (const Value& value : values) {
    if (value && value.state_ != state_) fail(ErrorCode::invalid_argument, "{}: '{}' belongs to another network", what, value.name());
    own.push_back(value.value_);
  }
  return own;
}

std::vector<Network::Value> Network::add_all(const std::string& op_name, const std::vector<Value>& operands, const OpAttributes& attributes,
                                             const std::string& name) {
  const OpInfo& info = op_info(op_name);
  const OpDef& op = state_->module.op(info.name);
  const std::vector<tandem::Value*> values = own(operands, label_of(op_name, name));
  Node* node = nullptr;
  try {
    check_operands(op, values);
    const NamedAttributes checked = checked_attributes(*state_, op, values, attributes);
    std::vector<std::string> names = {name.empty() ? info.method : name};
    for (std::size_t i = 1; i < info.results.size(); ++i) names.push_back(names[0] + "." + info.results[i].name);
    node = state_->graph.add(op, values, checked, name, names);
  } catch (const Error& error) {
    refuse(error, label_of(op_name, name));
  }
  std::vector<Value> results;
  for (const auto& result : node->results()) results.push_back({state_, result.get()});
  return results;
}

Network::Value Network::add(const std::string& op, const std::vector<Value>& operands, const OpAttributes& attributes,
                            const std::string& name) {
  if (op_info(op).results.size() != 1) fail(ErrorCode::invalid_argument, "{} has {} results: use add_all", op, op_info(op).results.size());
  return add_all(op, operands, attributes, name).at(0);
}

void Network::set_attribute(const Value& value, const std::string& name, const OpAttribute& to) {
  Node& node = producer_of(own({value}, "an attribute").at(0));
  const std::vector<Node*> later = nodes_from(state_->graph, node);
  const Attributes before = node.attributes;
  std::vector<Type> types;
  for (const Node* n : later)
    for (const auto& result : n->results()) types.push_back(result->type);
  try {
    Attributes changed = before;
    changed.set(name, to_graph(field_of(node.op(), name), to));
    settle_ranks(*state_, node.op(), changed, name != "axis" && name != "groups");
    if (node.is("Reshape")) fill_hole(node.operand(0)->type, changed);
    node.attributes = changed;
    for (Node* n : later) state_->graph.reinfer(*n);
  } catch (const Error& error) {
    node.attributes = before;
    std::size_t at = 0;
    for (Node* n : later)
      for (const auto& result : n->results()) result->type = types[at++];
    refuse(error, error.node().empty() ? node.label() : error.node());
  }
}

OpAttribute Network::attribute(const Value& value, const std::string& name) const {
  const Node& node = producer_of(own({value}, "an attribute").at(0));
  const Field& field = field_of(node.op(), name);
  return to_public(node.attributes.values().at(static_cast<std::size_t>(&field - node.op().fields.data())));
}

Network::Value Network::dist_collective(const Value& x, const std::string& operation, const CollectiveOptions& options,
                                        const std::string& name) {
  const CollectiveInfo& collective = info(parse_collective(operation));
  const OpInfo& op = op_info(std::string(collective.op));
  OpAttributes attributes = {{"axis", options.axis}, {"groups", options.groups}};
  if (options.num_ranks != 0) attributes["num_ranks"] = options.num_ranks;
  if (collective.reduces && !options.reduce.empty()) attributes["reduce"] = options.reduce;
  if (!collective.reduces && !options.reduce.empty() && options.reduce != "none")
    fail(ErrorCode::invalid_argument, "{} does not reduce, but is given '{}'", operation, options.reduce);
  if (collective.rooted) attributes["root"] = options.root;
  if (!collective.rooted && options.root >= 0)
    fail(ErrorCode::invalid_argument, "{} has no root, but is given {}", operation, options.root);
  for (const AttributeInfo& attribute : op.attributes) {
    if (attribute.name == "dim" || attribute.name == "split_dim" || attribute.name == "concat_dim")
      attributes[attribute.name] = options.dim;
    if (attribute.name == "shift") attributes["shift"] = options.shift;
  }
  return add(op.name, {x}, attributes, name);
}

Network::Value Network::attention(const Value& q, const Value& k, const Value& v, const AttentionOptions& options,
                                  const std::string& name) {
  OpAttributes attributes = {{"causal", options.causal},       {"softcap", options.softcap},      {"axis", options.axis},
                             {"groups", options.groups},       {"split", options.split},          {"layout", options.layout},
                             {"algorithm", options.algorithm}, {"extent", options.extent.text()}, {"kv_extent", options.kv_extent.text()}};
  if (options.num_ranks != 0) attributes["num_ranks"] = options.num_ranks;
  const auto size = q && q.rank() > 0 ? q.shape().back().value() : std::nullopt;
  if (!options.scale && !size)
    throw Error(ErrorCode::invalid_argument, "the head size is not known, so a scale must be given", label_of("Attention", name));
  attributes["scale"] = options.scale ? *options.scale : 1 / std::sqrt(static_cast<double>(*size));
  std::vector<Value> operands = {q, k, v, options.mask, options.query_lengths, options.key_lengths, options.past};
  while (!operands.back() && operands.size() > 3) operands.pop_back();
  return add("Attention", operands, attributes, name);
}

Network::Value Network::attention(const Value& q, const Value& k, const Value& v) { return attention(q, k, v, AttentionOptions{}); }

namespace {

Network::Value binary(const char* op, const Network::Value& a, const Network::Value& b) {
  if (!a || !b) fail(ErrorCode::invalid_argument, "[{}] an operand is absent", op);
  return a.network().add(op, {a, b});
}

}  // namespace

Network::Value operator+(const Network::Value& a, const Network::Value& b) { return binary("Add", a, b); }
Network::Value operator-(const Network::Value& a, const Network::Value& b) { return binary("Sub", a, b); }
Network::Value operator*(const Network::Value& a, const Network::Value& b) { return binary("Mul", a, b); }
Network::Value operator/(const Network::Value& a, const Network::Value& b) { return binary("Div", a, b); }
Network::Value operator-(const Network::Value& x) {
  if (!x) fail(ErrorCode::invalid_argument, "[Neg] the operand is absent");
  return x.network().add("Neg", {x});
}

}  // namespace tandem
