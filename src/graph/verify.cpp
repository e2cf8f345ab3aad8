#include <algorithm>
#include <set>
#include <unordered_map>

#include "core/check.h"
#include "graph/graph.h"
#include "graph/measured.h"
#include "graph/text.h"

namespace tandem {
namespace {

class Verifier {
 public:
  explicit Verifier(const Module& module) : module_(module) {
    for (const auto& w : module.weights()) weights_.insert(w.get());
  }

  void graph(const Graph& g) {
    names(g);
    for (const Profile& p : g.profiles)
      for (const auto& [symbol, r] : p)
        require(0 <= r.min && r.min <= r.opt && r.opt <= r.max, "symbol '{}' ranges over {}:{}:{}, expected 0 ≤ min ≤ opt ≤ max", symbol,
                r.min, r.opt, r.max);
    measured(g);
    for (const auto& v : g.inputs()) define(*v);
    for (const auto& v : g.weight_values()) weight(*v), define(*v);
    for (const auto& n : g.nodes()) {
      try {
        node(g, *n);
      } catch (const Error& error) {
        throw error.at_node(n->label());
      }
    }
    outputs(g);
    for (const auto& v : g.inputs()) leave(*v);
    for (const auto& v : g.weight_values()) leave(*v);
    for (const auto& n : g.nodes())
      for (const auto& r : n->results()) leave(*r);
  }

 private:
  template <typename... Args>
  static void require(bool holds, fmt::format_string<Args...> format, Args&&... args) {
    if (!holds) fail(ErrorCode::invalid_model, format, std::forward<Args>(args)...);
  }

  static void names(const Graph& g) {
    std::set<std::string_view> seen;
    const auto add = [&](const Value& v) {
      require(!v.name().empty(), "a value of {} has no name", g.name());
      require(seen.insert(v.name()).second, "two values of {} are named %{}", g.name(), v.name());
      require(&v.graph() == &g, "%{} belongs to another graph than {}", v.name(), g.name());
    };
    for (const auto& v : g.inputs()) add(*v);
    for (const auto& v : g.weight_values()) add(*v);
    for (const auto& n : g.nodes())
      for (const auto& r : n->results()) add(*r);
  }

  // From here on the value may be used; counts its uses from then.
  void define(const Value& v) {
    for (const Dim& d : v.type.dims) extent(d, v.name());
    for (const Dim& d : v.type.dims)
      require(!d.is_constant() || d.constant() >= 0, "%{} has a negative extent: {}", v.name(), v.type.to_string());
    sharding(v);
    uses_[&v] = 0;
  }

  void leave(const Value& v) {
    const std::size_t found = uses_.at(&v);
    require(v.uses().size() == found, "%{} lists {} uses, found {}", v.name(), v.uses().size(), found);
    uses_.erase(&v);
  }

  void sharding(const Value& v) const {
    const Sharding& s = v.sharding;
    require(s.dims.empty() || s.dims.size() == v.type.dims.size(), "%{}: sharding {} has {} dimensions, expected {}", v.name(),
            s.to_string(), s.dims.size(), v.type.dims.size());
    std::set<std::string_view> axes;
    const auto use = [&](const std::string& axis) {
      require(module_.mesh.has(axis), "%{}: sharding {} names axis '{}', which the mesh ({}) lacks", v.name(), s.to_string(), axis,
              module_.mesh.to_string());
      require(axes.insert(axis).second, "%{}: sharding {} names axis '{}' twice", v.name(), s.to_string(), axis);
    };
    for (const DimSharding& d : s.dims)
      for (const Factor& f : d)
        for (const std::string& axis : f.axes) use(axis);
    for (const Partial& p : s.partial) use(p.axis);
    for (const std::string& axis : s.varying) use(axis);
  }

  void weight(const Value& v) const {
    require(v.weight() && weights_.contains(v.weight()), "%{} is no weight of the module", v.name());
    const Recipe& r = *v.weight()->recipe;
    const Type type{r.dtype, std::vector<Dim>(r.shape.begin(), r.shape.end())};
    require(v.type == type, "weight %{} is {}, its recipe makes {}", v.name(), v.type.to_string(), type.to_string());
  }

  void node(const Graph& g, const Node& n) {
    require(&n.graph() == &g, "the node belongs to another graph than {}", g.name());
    operands(n);
    attributes(n);
    for (const auto& r : n.regions()) graph(*r);
    if (const auto extent = measured_extent(n)) unmeasured_.erase(extent->symbol);
    for (const AttributeValue& value : n.attributes.values()) attribute_extents(value);
    types(n);
    for (const auto& r : n.results()) {
      require(r->producer() == &n, "%{} names another producer", r->name());
      define(*r);
    }
  }

  void operands(const Node& n) {
    const OpDef& op = n.op();
    const auto count = static_cast<int>(n.operands().size());
    const std::string most = op.max_operands < 0 ? "any number" : std::to_string(op.max_operands);
    require(count >= op.min_operands && (op.max_operands < 0 || count <= op.max_operands), "{} operands, expected {} to {}", count,
            op.min_operands, most);
    for (int i = 0; i < count; ++i) {
      const Value* v = n.operand(static_cast<std::size_t>(i));
      require(v || i >= op.min_operands, "operand {} is absent", i);
      if (!v) continue;
      const auto found = uses_.find(v);
      require(found != uses_.end(), "operand {} is not defined before its use", i);
      // The node is looked up as an address only; what it points to may be gone.
      const auto listed = std::ranges::count_if(v->uses(), [&](const Use& u) { return u.node == &n && u.operand == i; });
      require(listed == 1, "operand {} (%{}) is listed {} times among its uses", i, v->name(), listed);
      ++found->second;
    }
  }

  // Each measured symbol is measured once, and is the extent of no input.
  void measured(const Graph& g) {
    const SymbolRanges free = g.symbol_ranges();
    for (const auto& n : g.nodes()) {
      if (!measures(n->attributes)) continue;
      const std::string& symbol = n->attributes.text("symbol");
      require(!free.contains(symbol), "{} measures '{}', which has a range of its own", n->label(), symbol);
      require(unmeasured_.insert(symbol).second, "{} measures '{}', which another node measures", n->label(), symbol);
    }
  }

  void extent(const Dim& d, std::string_view what) const {
    if (unmeasured_.empty()) return;
    std::set<std::string> symbols;
    d.collect_symbols(symbols);
    for (const std::string& symbol : symbols)
      require(!unmeasured_.contains(symbol), "{} holds '{}', which is measured only later", what, symbol);
  }

  void attribute_extents(const AttributeValue& value) const {
    if (const auto* d = std::get_if<Dim>(&value)) extent(*d, "an attribute");
    if (const auto* ds = std::get_if<std::vector<Dim>>(&value))
      for (const Dim& d : *ds) extent(d, "an attribute");
  }

  static void attributes(const Node& n) {
    const auto& fields = n.op().fields;
    const auto& values = n.attributes.values();
    require(values.size() == fields.size(), "{} attributes, expected {}", values.size(), fields.size());
    for (std::size_t i = 0; i < fields.size(); ++i) {
      require(values[i].index() == static_cast<std::size_t>(fields[i].kind), "attribute '{}' has the wrong type", fields[i].name);
      const auto* word = std::get_if<std::string>(&values[i]);
      if (!word || fields[i].words.empty()) continue;
      require(std::ranges::find(fields[i].words, *word) != fields[i].words.end(), "attribute {}='{}' is not one of {}", fields[i].name,
              *word, fmt::join(fields[i].words, " "));
    }
  }

  static void types(const Node& n) {
    check(n.op().infer != nullptr, fmt::format("{} has inference", n.op().name));
    const std::vector<Type> expected = n.op().infer(n.call());
    require(expected.size() == n.results().size(), "{} results, inference says {}", n.results().size(), expected.size());
    for (std::size_t i = 0; i < expected.size(); ++i)
      require(n.result(i)->type == expected[i], "%{} is {}, inference says {}", n.result(i)->name(), n.result(i)->type.to_string(),
              expected[i].to_string());
  }

  void outputs(const Graph& g) {
    std::set<std::string_view> seen;
    for (const Graph::Output& o : g.outputs()) {
      require(!o.name.empty(), "an output of {} has no name", g.name());
      require(seen.insert(o.name).second, "two outputs of {} are named \"{}\"", g.name(), o.name);
      require(o.value && uses_.contains(o.value), "output \"{}\" of {} is no value of the program", o.name, g.name());
    }
  }

  const Module& module_;
  std::set<const Weight*> weights_;
  std::set<std::string> unmeasured_;                    // symbols of nodes that are still to come
  std::unordered_map<const Value*, std::size_t> uses_;  // of the values visible now
};

}  // namespace

void verify(const Graph& graph) { Verifier(graph.module()).graph(graph); }

void verify(const Module& module) {
  std::set<std::string_view> programs, weights;
  for (const auto& g : module.graphs())
    if (!programs.insert(g->name()).second) fail(ErrorCode::invalid_model, "two programs are named '{}'", g->name());
  for (const auto& w : module.weights()) {
    if (!w->recipe || w->name.empty()) fail(ErrorCode::invalid_model, "weight '{}' has no recipe or no name", w->name);
    if (!weights.insert(w->name).second) fail(ErrorCode::invalid_model, "two weights are named '{}'", w->name);
  }
  for (const auto& g : module.graphs()) verify(*g);
}

}  // namespace tandem
