#include <map>

#include "core/check.h"
#include "graph/text.h"
#include "graph/text_values.h"

namespace tandem {
namespace {

// Walks two modules side by side; throws the first difference as its sentence.
class Comparison {
 public:
  struct Difference {
    std::string what;
  };

  void modules(const Module& a, const Module& b) {
    require(a.mesh == b.mesh, "meshes {} and {}", a.mesh.to_string(), b.mesh.to_string());
    require(a.notices == b.notices, "notices");
    require(a.weights().size() == b.weights().size(), "{} and {} weights", a.weights().size(), b.weights().size());
    for (std::size_t i = 0; i < a.weights().size(); ++i) {
      const Weight &x = *a.weights()[i], &y = *b.weights()[i];
      require(x.name == y.name && x.frozen == y.frozen, "weights {} and {}", x.name, y.name);
      const std::string p = print_recipe(*x.recipe), q = print_recipe(*y.recipe);
      require(p == q, "recipes {} and {}", p, q);
    }
    for (const auto& [name, data] : a.sources()) require(!b.has_source(name) || equal(data, b.source(name)), "data of source {}", name);
    require(a.graphs().size() == b.graphs().size(), "{} and {} programs", a.graphs().size(), b.graphs().size());
    for (std::size_t i = 0; i < a.graphs().size(); ++i) graphs(*a.graphs()[i], *b.graphs()[i]);
  }

 private:
  template <typename... Args>
  static void require(bool holds, fmt::format_string<Args...> format, Args&&... args) {
    if (!holds) throw Difference{fmt::format(format, std::forward<Args>(args)...)};
  }

  void value(const Value& a, const Value& b) {
    require(a.name() == b.name(), "values %{} and %{}", a.name(), b.name());
    const std::string x = print(a.type, a.sharding), y = print(b.type, b.sharding);
    require(a.type == b.type && a.sharding == b.sharding, "%{} is {} and {}", a.name(), x, y);
    require(!a.weight() == !b.weight() && (!a.weight() || a.weight()->name == b.weight()->name), "%{}: the weights", a.name());
    matches_[&a] = &b;
  }

  void values(const std::vector<std::unique_ptr<Value>>& a, const std::vector<std::unique_ptr<Value>>& b, const std::string& where) {
    require(a.size() == b.size(), "{}: {} and {} values", where, a.size(), b.size());
    for (std::size_t i = 0; i < a.size(); ++i) value(*a[i], *b[i]);
  }

  bool matches(const Value* a, const Value* b) const {
    if (!a || !b) return a == b;
    const auto found = matches_.find(a);
    return found != matches_.end() && found->second == b;
  }

  void graphs(const Graph& a, const Graph& b) {
    require(a.name() == b.name(), "programs {} and {}", a.name(), b.name());
    require(a.profiles == b.profiles, "profiles of {}", a.name());
    require(a.constraints == b.constraints, "constraints of {}", a.name());
    values(a.inputs(), b.inputs(), "inputs of " + a.name());
    values(a.weight_values(), b.weight_values(), "weights of " + a.name());
    require(a.nodes().size() == b.nodes().size(), "{}: {} and {} nodes", a.name(), a.nodes().size(), b.nodes().size());
    for (auto x = a.nodes().begin(), y = b.nodes().begin(); x != a.nodes().end(); ++x, ++y) nodes(**x, **y);
    require(a.outputs().size() == b.outputs().size(), "{}: {} and {} outputs", a.name(), a.outputs().size(), b.outputs().size());
    for (std::size_t i = 0; i < a.outputs().size(); ++i) {
      const Graph::Output &x = a.outputs()[i], &y = b.outputs()[i];
      require(x.name == y.name && matches(x.value, y.value), "outputs {} and {}", x.name, y.name);
    }
  }

  void nodes(const Node& a, const Node& b) {
    const std::string where = a.label();
    require(a.op().name == b.op().name && a.name() == b.name(), "nodes {} and {}", where, b.label());
    require(a.note == b.note, "{}: notes {} and {}", where, a.note, b.note);
    const auto &x = a.attributes.values(), &y = b.attributes.values();
    require(x.size() == y.size(), "{}: attributes", where);
    for (std::size_t i = 0; i < x.size(); ++i)
      require(equal(x[i], y[i]), "{}: {} = {} and {}", where, a.op().fields[i].name, print_value(x[i]), print_value(y[i]));
    require(a.operands().size() == b.operands().size(), "{}: {} and {} operands", where, a.operands().size(), b.operands().size());
    for (std::size_t i = 0; i < a.operands().size(); ++i) require(matches(a.operand(i), b.operand(i)), "{}: operand {}", where, i);
    require(a.regions().size() == b.regions().size(), "{}: regions", where);
    for (std::size_t i = 0; i < a.regions().size(); ++i) graphs(*a.regions()[i], *b.regions()[i]);
    values(a.results(), b.results(), where);
  }

  std::map<const Value*, const Value*> matches_;
};

}  // namespace

bool same(const Module& a, const Module& b, std::string* why) {
  try {
    Comparison().modules(a, b);
    return true;
  } catch (const Comparison::Difference& difference) {
    if (why) *why = difference.what + " differ";
    return false;
  }
}

}  // namespace tandem
