#include "graph/graph.h"

#include <algorithm>
#include <set>

#include "core/check.h"
#include "graph/measured.h"

namespace tandem {

std::string Node::label() const {
  const Value* first = results_.empty() ? nullptr : results_[0].get();
  return fmt::format("{} \"{}\"", op_->name, !name_.empty() ? name_ : first ? first->name() : "");
}

OpCall Node::call() const {
  OpCall call{op_, attributes, {}, {}};
  for (const Value* v : operands_) call.operands.push_back(v ? std::optional(v->type) : std::nullopt);
  for (const auto& r : results_) call.results.push_back(r->type);
  return call;
}

void Node::set_operand(std::size_t i, Value* value) {
  if (Value* old = operands_.at(i)) std::erase(old->uses_, Use{this, static_cast<int>(i)});
  operands_[i] = value;
  if (value) value->uses_.push_back({this, static_cast<int>(i)});
}

void Node::resize_operands(std::size_t count) {
  for (std::size_t i = count; i < operands_.size(); ++i) set_operand(i, nullptr);
  operands_.resize(count, nullptr);
}

Graph& Node::add_region() {
  regions_.push_back(std::make_unique<Graph>(graph_->module(), fmt::format("{}.region{}", graph_->name(), regions_.size())));
  return *regions_.back();
}

Graph::Graph(Module& module, std::string name) : module_(&module), name_(std::move(name)) {}
Graph::~Graph() = default;

void Graph::rename(Value& value, std::string wanted) { value.name_ = unique_name(std::move(wanted)); }

std::string Graph::unique_name(std::string wanted) {
  if (wanted.empty()) wanted = "t";
  int& count = names_[wanted];
  if (count++ == 0) return wanted;
  for (;; ++count) {
    std::string name = fmt::format("{}.{}", wanted, count - 1);
    if (auto [at, fresh] = names_.try_emplace(name, 1); fresh) return name;
  }
}

Value* Graph::add_input(std::string name, Type type) {
  auto value = std::make_unique<Value>();
  value->name_ = unique_name(std::move(name));
  value->type = std::move(type);
  value->graph_ = this;
  value->index_ = static_cast<int>(inputs_.size());
  inputs_.push_back(std::move(value));
  return inputs_.back().get();
}

Value* Graph::weight_value(const Weight& weight, std::string name) {
  for (const auto& v : weights_)
    if (v->weight_ == &weight) return v.get();
  auto value = std::make_unique<Value>();
  value->name_ = unique_name(name.empty() ? weight.name : std::move(name));
  value->type.dtype = weight.recipe->dtype;
  for (std::int64_t extent : weight.recipe->shape) value->type.dims.emplace_back(extent);
  value->graph_ = this;
  value->weight_ = &weight;
  weights_.push_back(std::move(value));
  return weights_.back().get();
}

Node* Graph::add(const OpDef& op, std::vector<Value*> operands, const NamedAttributes& attributes, std::string node_name,
                 std::vector<std::string> result_names, Node* before) {
  Attributes values(&op.fields);
  std::vector<std::pair<std::string, Type>> results;
  try {
    for (const auto& [name, value] : attributes) values.set(name, value);
    OpCall call{&op, values, {}, {}};
    for (const Value* v : operands) call.operands.push_back(v ? std::optional(v->type) : std::nullopt);
    const auto count = static_cast<int>(operands.size());
    if (count < op.min_operands || (op.max_operands >= 0 && count > op.max_operands))
      fail(ErrorCode::invalid_model, "{} operands, expected {} to {}", count, op.min_operands, op.max_operands);
    for (int i = 0; i < op.min_operands; ++i)
      if (!operands[static_cast<std::size_t>(i)]) fail(ErrorCode::invalid_model, "operand {} is absent", i);
    const std::vector<Type> types = op.infer(call);
    for (std::size_t i = 0; i < types.size(); ++i) results.emplace_back(i < result_names.size() ? result_names[i] : "", types[i]);
  } catch (const Error& error) {
    throw error.at_node(fmt::format("{} \"{}\"", op.name, node_name));
  }
  return add_typed(op, std::move(operands), std::move(values), std::move(node_name), std::move(results), before);
}

Node* Graph::add_typed(const OpDef& op, std::vector<Value*> operands, Attributes attributes, std::string node_name,
                       std::vector<std::pair<std::string, Type>> results, Node* before) {
  auto owned = std::make_unique<Node>();
  Node* node = owned.get();
  node->op_ = &op;
  node->name_ = std::move(node_name);
  node->graph_ = this;
  node->attributes = std::move(attributes);
  node->operands_.resize(operands.size(), nullptr);
  for (std::size_t i = 0; i < operands.size(); ++i) node->set_operand(i, operands[i]);
  for (std::size_t i = 0; i < results.size(); ++i) {
    auto value = std::make_unique<Value>();
    value->name_ = unique_name(std::move(results[i].first));
    value->type = std::move(results[i].second);
    value->graph_ = this;
    value->producer_ = node;
    value->index_ = static_cast<int>(i);
    node->results_.push_back(std::move(value));
  }
  node->position_ = nodes_.insert(before ? before->position_ : nodes_.end(), std::move(owned));
  return node;
}

void Graph::reinfer(Node& node) {
  OpCall call = node.call();
  try {
    const std::vector<Type> types = node.op().infer(call);
    check(types.size() == node.results().size(), "reinference keeps the number of results");
    for (std::size_t i = 0; i < types.size(); ++i) node.result(i)->type = types[i];
  } catch (const Error& error) {
    throw error.at_node(node.label());
  }
}

void Graph::replace_uses(Value* of, Value* with) {
  if (of == with) return;
  for (const Use use : std::vector<Use>(of->uses_)) use.node->set_operand(static_cast<std::size_t>(use.operand), with);
  for (Output& o : outputs_)
    if (o.value == of) o.value = with;
}

void Graph::erase(Node& node) {
  for (const auto& r : node.results()) check(r->uses().empty() && !is_output(r.get()), "erasing a node in use: " + node.label());
  for (std::size_t i = 0; i < node.operands_.size(); ++i) node.set_operand(i, nullptr);
  for (const auto& r : node.results()) names_.erase(r->name());
  nodes_.erase(node.position_);
}

void Graph::move_before(Node& node, Node& before) { nodes_.splice(before.position_, nodes_, node.position_); }

bool Graph::is_output(const Value* value) const {
  return std::any_of(outputs_.begin(), outputs_.end(), [&](const Output& o) { return o.value == value; });
}

int Graph::erase_dead() {
  int erased = 0;
  for (auto it = nodes_.end(); it != nodes_.begin();) {
    --it;
    Node& node = **it;
    const bool used =
        std::any_of(node.results().begin(), node.results().end(), [&](const auto& r) { return !r->uses().empty() || is_output(r.get()); });
    if (used || measures(node.attributes)) continue;  // extents may hold what it measures
    auto next = std::next(it);
    erase(node);
    it = next;
    ++erased;
  }
  std::erase_if(weights_, [&](const std::unique_ptr<Value>& w) {
    const bool unused = w->uses().empty() && !is_output(w.get());
    if (unused) names_.erase(w->name());
    return unused;
  });
  return erased;
}

std::vector<Node*> Graph::node_list() const {
  std::vector<Node*> list;
  for (const auto& n : nodes_) list.push_back(n.get());
  return list;
}

SymbolRanges Graph::symbol_ranges() const {
  SymbolRanges ranges;
  for (const Profile& p : profiles)
    for (const auto& [name, r] : p) {
      const auto [at, fresh] = ranges.try_emplace(name, Range{r.min, r.max});
      if (!fresh) at->second = {std::min(at->second.min, r.min), std::max(at->second.max, r.max)};
    }
  return ranges;
}

}  // namespace tandem
