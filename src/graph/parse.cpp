#include <unordered_map>

#include "core/check.h"
#include "graph/text.h"
#include "graph/text_values.h"

namespace tandem {
namespace {

class ModuleParser {
 public:
  ModuleParser(std::string_view text, const OpSet& ops) : s_(text), module_(std::make_unique<Module>(ops)) {
    for (const OpDef* op : ops.all()) ops_.emplace(op->name, op);
  }

  std::unique_ptr<Module> parse() {
    if (!s_.take_word("module")) s_.refuse("'module'");
    if (s_.take_word("mesh")) mesh();
    while (s_.peek() != '\0') {
      if (s_.take_word("notice")) module_->notices.push_back(s_.quoted("a string"));
      else if (s_.take_word("source")) source();
      else if (s_.take_word("weight")) weight();
      else if (s_.take_word("program")) program();
      else s_.refuse("notice, source, weight or program");
    }
    return std::move(module_);
  }

 private:
  using Names = std::unordered_map<std::string, Value*>;
  struct Level {
    Graph* graph;
    Names names;
  };
  struct Result {
    std::string name;
    std::size_t position;
    Type type;
    Sharding sharding;
  };

  std::string plain(std::string_view expected) { return s_.peek() == '"' ? s_.quoted(expected) : std::string(s_.word(expected)); }

  std::string defined_name() {
    if (!s_.take('%')) s_.refuse("the name of a value");
    const std::size_t start = s_.position();
    std::string name = s_.name("the name of a value");
    if (name.empty()) s_.refuse_at(start, "a value needs a name");
    return name;
  }

  void mesh() {
    const std::size_t start = s_.position();
    std::vector<MeshAxis> axes;
    s_.expect('(');
    while (!s_.take(')')) {
      if (!axes.empty()) s_.expect(',');
      std::string name = plain("a mesh axis");
      s_.expect('=');
      const std::size_t at = s_.position();
      const std::int64_t size = s_.integer("the size of the axis");
      if (size < 1 || size > 65536) s_.refuse_at(at, fmt::format("mesh axis '{}' has size {}, expected 1 to 65536", name, size));
      axes.push_back({std::move(name), static_cast<int>(size)});
      if (axes.size() > kMaxTextDepth) s_.refuse_at(at, "too many mesh axes");
    }
    module_->mesh = s_.at(start, [&] { return Mesh(std::move(axes)); });
  }

  void source() {
    std::string name = s_.quoted("the name of a source");
    s_.expect('=');
    module_->add_source(std::move(name), scan_tensor(s_));
  }

  void weight() {
    const std::size_t start = s_.position();
    const std::string name = defined_name();
    s_.expect(':');
    const DType dtype = scan_dtype(s_);
    const Shape shape = scan_shape(s_);
    s_.expect('=');
    RecipePtr recipe = scan_recipe(s_);
    if (recipe->dtype != dtype || recipe->shape != shape)
      s_.refuse_at(start, fmt::format("the recipe makes {}{}", to_string(recipe->dtype), to_string(recipe->shape)));
    const bool frozen = s_.take_word("frozen");
    const Weight& made = module_->add_weight(name, std::move(recipe), frozen);
    if (made.name != name || !weights_.emplace(name, &made).second)
      s_.refuse_at(start, fmt::format("weight {} repeats the name or recipe of {}", value_name(name), value_name(made.name)));
  }

  void program() {
    Graph& graph = module_->add_graph(plain("the name of the program"));
    body(graph);
  }

  void profiles(Graph& graph) {
    while (s_.take_word("symbols")) {
      Profile profile;
      s_.expect('(');
      while (!s_.take(')')) {
        if (!profile.empty()) s_.expect(',');
        const std::size_t start = s_.position();
        std::string symbol = plain("a symbol");
        SymbolRange r;
        s_.expect('=');
        r.min = s_.integer("the least value");
        s_.expect(':');
        r.opt = s_.integer("the usual value");
        s_.expect(':');
        r.max = s_.integer("the largest value");
        if (!profile.emplace(symbol, r).second) s_.refuse_at(start, fmt::format("symbol '{}' repeats", symbol));
      }
      graph.profiles.push_back(std::move(profile));
    }
  }

  void body(Graph& graph) {
    const Scanner::Nested guard(s_);
    profiles(graph);
    levels_.push_back({&graph, {}});
    s_.expect('{');
    while (!s_.take('}')) {
      if (s_.take_word("input")) input(graph);
      else if (s_.take_word("weight")) weight_value(graph);
      else if (s_.take_word("require")) constraint(graph);
      else if (s_.take_word("return")) output(graph);
      else node(graph);
    }
    levels_.pop_back();
  }

  void define(Value* value, std::size_t position, const std::string& name) {
    if (value->name() != name || !levels_.back().names.emplace(name, value).second)
      s_.refuse_at(position, fmt::format("{} is defined twice", value_name(name)));
  }

  void type_of(Value& value) {
    s_.expect(':');
    value.type = scan_type(s_);
    if (s_.peek() == '{') value.sharding = scan_sharding(s_);
  }

  void input(Graph& graph) {
    const std::size_t start = s_.position();
    const std::string name = defined_name();
    Value* value = graph.add_input(name, {});
    type_of(*value);
    define(value, start, name);
  }

  const Weight& weight_of(std::size_t position, const std::string& name) {
    const auto found = weights_.find(name);
    if (found == weights_.end()) s_.refuse_at(position, fmt::format("the module has no weight {}", value_name(name)));
    return *found->second;
  }

  void weight_value(Graph& graph) {
    const std::size_t start = s_.position();
    const std::string name = defined_name();
    s_.expect(':');
    Type type = scan_type(s_);
    Sharding sharding = s_.peek() == '{' ? scan_sharding(s_) : Sharding{};
    const Weight& weight = weight_of(start, s_.take_word("of") ? defined_name() : name);
    Value* value = graph.weight_value(weight, name);
    value->type = std::move(type);
    value->sharding = std::move(sharding);
    define(value, start, name);
  }

  void constraint(Graph& graph) {
    Constraint c;
    c.left = s_.dim();
    s_.expect('=');
    s_.expect('=');
    c.right = s_.dim();
    if (s_.peek() == '"') c.where = s_.quoted("the node");
    graph.constraints.push_back(std::move(c));
  }

  void output(Graph& graph) {
    do {
      Value* value = reference();
      if (!value) s_.refuse("a value");
      graph.outputs().push_back({s_.take_word("as") ? s_.quoted("the name of the output") : value->name(), value});
    } while (s_.take(','));
  }

  // A value of this graph or an enclosing one; %^name starts one graph further out. A weight of the module that the
  // program did not declare becomes a value of the innermost graph.
  Value* reference() {
    if (s_.take('_')) return nullptr;
    const std::size_t start = s_.position();
    if (!s_.take('%')) s_.refuse("a value or _");
    std::size_t up = 0;
    while (s_.take('^')) ++up;
    const std::string name = s_.name("the name of a value");
    for (std::size_t i = levels_.size(); i-- > 0;) {
      if (up > 0) {
        --up;
        continue;
      }
      const auto found = levels_[i].names.find(name);
      if (found != levels_[i].names.end()) return found->second;
    }
    if (!weights_.contains(name)) s_.refuse_at(start, fmt::format("{} is not defined before its use", value_name(name)));
    Value* value = levels_.back().graph->weight_value(*weights_.at(name), name);
    define(value, start, name);
    return value;
  }

  // Left of the '='. Types are given for all results or for none.
  std::vector<Result> results(bool& typed) {
    std::vector<Result> list;
    if (s_.peek() == '=') return list;
    do {
      Result r{{}, s_.position(), {}, {}};
      r.name = defined_name();
      if (list.empty()) typed = s_.peek() == ':';
      if (typed) {
        s_.expect(':');
        r.type = scan_type(s_);
        if (s_.peek() == '{') r.sharding = scan_sharding(s_);
      }
      list.push_back(std::move(r));
    } while (s_.take(','));
    return list;
  }

  std::vector<Value*> operands() {
    std::vector<Value*> list;
    s_.expect('(');
    if (s_.take(')')) return list;
    do list.push_back(reference());
    while (s_.take(','));
    s_.expect(')');
    return list;
  }

  Attributes attributes(const OpDef& op) {
    Attributes values(&op.fields);
    if (!s_.take('{') || s_.take('}')) return values;
    do {
      const std::size_t start = s_.position();
      const std::string_view name = s_.word("an attribute");
      std::size_t i = 0;
      while (i < op.fields.size() && op.fields[i].name != name) ++i;
      if (i == op.fields.size()) s_.refuse_at(start, fmt::format("{} has no attribute '{}'", op.name, name));
      s_.expect('=');
      AttributeValue value = scan_value(s_, op.fields[i].kind);
      s_.at(start, [&] { values.set(name, std::move(value)); });
    } while (s_.take(','));
    s_.expect('}');
    return values;
  }

  void node(Graph& graph) {
    const std::size_t start = s_.position();
    bool typed = true;
    const std::vector<Result> made = results(typed);
    s_.expect('=');
    const std::size_t op_at = s_.position();
    const std::string_view op_name = s_.word("an op");
    const auto op = ops_.find(op_name);
    if (op == ops_.end()) s_.refuse_at(op_at, fmt::format("there is no op '{}'", op_name));
    std::vector<Value*> inputs = operands();
    Attributes values = attributes(*op->second);
    std::string name = s_.peek() == '"' ? s_.quoted("the name of the node") : "";
    Node* node = typed ? add_typed(graph, *op->second, std::move(inputs), std::move(values), std::move(name), made)
                       : add_inferred(graph, *op->second, std::move(inputs), values, std::move(name), made, start);
    if (s_.take_word("note")) node->note = s_.quoted("a string");
    while (s_.take_word("region")) body(node->add_region());
    for (std::size_t i = 0; i < made.size(); ++i) define(node->result(i), made[i].position, made[i].name);
  }

  Node* add_typed(Graph& graph, const OpDef& op, std::vector<Value*> inputs, Attributes values, std::string name,
                  const std::vector<Result>& made) {
    std::vector<std::pair<std::string, Type>> types;
    for (const Result& r : made) types.emplace_back(r.name, r.type);
    Node* node = graph.add_typed(op, std::move(inputs), std::move(values), std::move(name), std::move(types));
    for (std::size_t i = 0; i < made.size(); ++i) node->result(i)->sharding = made[i].sharding;
    return node;
  }

  Node* add_inferred(Graph& graph, const OpDef& op, std::vector<Value*> inputs, const Attributes& values, std::string name,
                     const std::vector<Result>& made, std::size_t start) {
    NamedAttributes named;
    for (std::size_t i = 0; i < op.fields.size(); ++i) named.emplace_back(op.fields[i].name, values.values()[i]);
    std::vector<std::string> names;
    for (const Result& r : made) names.push_back(r.name);
    Node* node = s_.at(start, [&] { return graph.add(op, std::move(inputs), named, std::move(name), std::move(names)); });
    if (node->results().size() != made.size())
      s_.refuse_at(start, fmt::format("{} has {} results, but {} are named", op.name, node->results().size(), made.size()));
    return node;
  }

  Scanner s_;
  std::unique_ptr<Module> module_;
  std::unordered_map<std::string_view, const OpDef*> ops_;
  std::unordered_map<std::string, const Weight*> weights_;
  std::vector<Level> levels_;
};

}  // namespace

std::unique_ptr<Module> parse_module(std::string_view text, const OpSet& ops) { return ModuleParser(text, ops).parse(); }

}  // namespace tandem
