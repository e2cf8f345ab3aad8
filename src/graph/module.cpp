#include <algorithm>
#include <set>

#include "core/check.h"
#include "graph/graph.h"

namespace tandem {

const OpDef& Module::op(std::string_view name) const {
  const OpDef* found = ops_->find(name);
  check(found != nullptr, fmt::format("there is no op '{}'", name));
  return *found;
}

Graph& Module::add_graph(std::string name) {
  graphs_.push_back(std::make_unique<Graph>(*this, std::move(name)));
  return *graphs_.back();
}

std::unique_ptr<Graph> Module::detached_graph(std::string name) { return std::make_unique<Graph>(*this, std::move(name)); }

void Module::replace(Graph& old, std::unique_ptr<Graph> with) {
  for (auto& g : graphs_)
    if (g.get() == &old) {
      g = std::move(with);
      return;
    }
  check(false, "replacing a graph of the module");
}

Graph& Module::main() const {
  check(!graphs_.empty(), "a module has a program");
  return *graphs_.front();
}

void Module::add_source(std::string name, Tensor data) { sources_.insert_or_assign(std::move(name), std::move(data)); }

const Tensor& Module::source(const std::string& name) const {
  const auto found = sources_.find(name);
  if (found == sources_.end()) fail(ErrorCode::invalid_model, "the model has no data for weight '{}'", name);
  return found->second;
}

const Weight& Module::add_weight(std::string name, RecipePtr recipe, bool frozen) {
  const std::string text = recipe->to_string();
  for (const auto& w : weights_)
    if (w->recipe == recipe || w->recipe->to_string() == text) return *w;
  const auto taken = [&](const std::string& n) {
    return std::any_of(weights_.begin(), weights_.end(), [&](const auto& w) { return w->name == n; });
  };
  std::string unique = name;
  for (int i = 1; taken(unique); ++i) unique = fmt::format("{}.{}", name, i);
  weights_.push_back(std::make_unique<Weight>(Weight{std::move(unique), std::move(recipe), frozen}));
  return *weights_.back();
}

namespace {

void collect_weights(const Graph& graph, std::set<const Weight*>& into) {
  for (const auto& v : graph.weight_values()) into.insert(v->weight());
  for (const auto& n : graph.nodes())
    for (const auto& r : n->regions()) collect_weights(*r, into);
}

}  // namespace

void Module::erase_unused_weights() {
  std::set<const Weight*> used;
  for (const auto& g : graphs_) collect_weights(*g, used);
  std::erase_if(weights_, [&](const auto& w) { return !used.contains(w.get()); });
  std::vector<std::string> names;
  for (const auto& w : weights_) w->recipe->collect_sources(names);
  const std::set<std::string> wanted(names.begin(), names.end());
  std::erase_if(sources_, [&](const auto& s) { return !wanted.contains(s.first); });
}

Tensor Module::weight_data(const Weight& weight) const {
  return run_recipe(*weight.recipe, [this](const std::string& name) { return source(name); }, {});
}

std::optional<Tensor> constant_of(const Value* value, std::int64_t limit) {
  if (!value) return std::nullopt;
  if (const Node* node = value->producer()) {
    if (!node->is("Constant")) return std::nullopt;
    return node->attributes.get<Tensor>("value");
  }
  if (!value->weight() || element_count(value->weight()->recipe->shape) > limit) return std::nullopt;
  const Module& module = value->graph().module();
  std::vector<std::string> sources;
  std::set<std::string> coordinates;
  value->weight()->recipe->collect_sources(sources);
  value->weight()->recipe->collect_symbols(coordinates);
  if (!coordinates.empty()) return std::nullopt;  // each rank has its own
  if (!std::all_of(sources.begin(), sources.end(), [&](const std::string& s) { return module.has_source(s); })) return std::nullopt;
  return module.weight_data(*value->weight());
}

}  // namespace tandem
