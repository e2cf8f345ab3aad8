#include "core/check.h"
#include "graph/text.h"
#include "graph/text_values.h"

namespace tandem {
namespace {

constexpr std::int64_t kPrintedSource = 64;  // elements; the data of larger sources is left out

class Printer {
 public:
  std::string take() { return std::move(out_); }

  void module(const Module& m) {
    std::string axes;
    for (const MeshAxis& a : m.mesh.axes()) axes += fmt::format("{}{}={}", axes.empty() ? "" : ",", plain_name(a.name), a.size);
    add("module mesh({})\n", axes);
    for (const std::string& n : m.notices) add("notice {}\n", quote(n));
    for (const auto& [name, data] : m.sources())
      if (data.count() <= kPrintedSource) add("source {} = {}\n", quote(name), print_tensor(data));
    for (const auto& w : m.weights()) {
      const Recipe& r = *w->recipe;
      add("weight {}: {}{} = {}{}\n", value_name(w->name), to_string(r.dtype), to_string(r.shape), print_recipe(r),
          w->frozen ? " frozen" : "");
    }
    for (const auto& g : m.graphs()) program(*g);
  }

  void program(const Graph& g) {
    add("program {}", plain_name(g.name()));
    body(g);
    out_ += "\n";
  }

 private:
  template <typename... Args>
  void add(fmt::format_string<Args...> format, Args&&... args) {
    fmt::format_to(std::back_inserter(out_), format, std::forward<Args>(args)...);
  }

  void line() { out_.append(2 * levels_.size(), ' '); }

  // One '^' per graph between the user and the owner of the value.
  std::string reference(const Value* v) const {
    if (!v) return "_";
    std::string up;
    for (std::size_t i = levels_.size(); i-- > 0 && levels_[i] != &v->graph();) up += "^";
    const std::string name = value_name(v->name());
    return "%" + up + name.substr(1);
  }

  void profile(const Profile& p) {
    std::string text;
    for (const auto& [symbol, r] : p)
      text += fmt::format("{}{}={}:{}:{}", text.empty() ? "" : ", ", plain_name(symbol), r.min, r.opt, r.max);
    add(" symbols({})", text);
  }

  void body(const Graph& g) {
    for (const Profile& p : g.profiles) profile(p);
    out_ += " {\n";
    levels_.push_back(&g);
    for (const auto& v : g.inputs()) line(), add("input {}: {}\n", value_name(v->name()), print(v->type, v->sharding));
    for (const auto& v : g.weight_values()) {
      line(), add("weight {}: {}", value_name(v->name()), print(v->type, v->sharding));
      if (v->name() != v->weight()->name) add(" of {}", value_name(v->weight()->name));
      out_ += "\n";
    }
    for (const Constraint& c : g.constraints)
      line(), add("require {} == {}{}\n", c.left.to_string(), c.right.to_string(), c.where.empty() ? "" : " " + quote(c.where));
    for (const auto& n : g.nodes()) node(*n);
    for (const Graph::Output& o : g.outputs()) {
      line(), add("return {}", reference(o.value));
      if (!o.value || o.name != o.value->name()) add(" as {}", quote(o.name));
      out_ += "\n";
    }
    levels_.pop_back();
    line(), out_ += "}";
  }

  void node(const Node& n) {
    line();
    for (std::size_t i = 0; i < n.results().size(); ++i) {
      const Value& r = *n.result(i);
      add("{}{}: {}", i ? ", " : "", value_name(r.name()), print(r.type, r.sharding));
    }
    add("{}= {}(", n.results().empty() ? "" : " ", n.op().name);
    for (std::size_t i = 0; i < n.operands().size(); ++i) add("{}{}", i ? ", " : "", reference(n.operand(i)));
    out_ += ")";
    attributes(n);
    if (!n.name().empty()) out_ += " " + quote(n.name());
    if (!n.note.empty()) out_ += " note " + quote(n.note);
    for (const auto& r : n.regions()) out_ += " region", body(*r);
    out_ += "\n";
  }

  void attributes(const Node& n) {
    const auto& fields = n.op().fields;
    std::string text;
    for (std::size_t i = 0; i < fields.size() && i < n.attributes.values().size(); ++i) {
      const AttributeValue& value = n.attributes.values()[i];
      if (!equal(value, fields[i].initial)) text += fmt::format("{}{}={}", text.empty() ? "" : ", ", fields[i].name, print_value(value));
    }
    if (!text.empty()) add(" {{{}}}", text);
  }

  std::string out_;
  std::vector<const Graph*> levels_;  // from the program to the region being printed
};

}  // namespace

std::string print(const Module& module) {
  Printer printer;
  printer.module(module);
  return printer.take();
}

std::string print(const Graph& graph) {
  Printer printer;
  printer.program(graph);
  return printer.take();
}

}  // namespace tandem
