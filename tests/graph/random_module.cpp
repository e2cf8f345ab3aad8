#include "graph/random_module.h"

#include <array>
#include <cstring>

#include "core/check.h"
#include "core/numeric.h"
#include "graph/text_values.h"

namespace tandem::testing {
namespace {

const std::vector<Field> kEvery = {
    {"count", FieldKind::integer, std::int64_t{1}},
    {"shape", FieldKind::dims, std::vector<Dim>{}},
    {"real", FieldKind::real, 1.0},
    {"flag", FieldKind::boolean, false},
    {"text", FieldKind::text, std::string("")},
    {"word", FieldKind::text, std::string("one"), {"one", "two", "three"}},
    {"integers", FieldKind::integers, std::vector<std::int64_t>{}},
    {"dim", FieldKind::dim, Dim(0)},
    {"type", FieldKind::dtype, DType::f32},
    {"data", FieldKind::tensor, Tensor()},
    {"groups", FieldKind::rank_lists, RankLists{}},
};

std::vector<Type> infer_every(const OpCall& call) {
  const std::int64_t count = call.attributes.integer("count");
  if (count < 0 || count > 8) fail(ErrorCode::invalid_model, "count {} is outside 0 to 8", count);
  return std::vector<Type>(static_cast<std::size_t>(count), Type{DType::f32, call.attributes.dims("shape")});
}
std::vector<Type> infer_same(const OpCall& call) { return {call.operand(0)}; }
std::vector<Type> infer_sink(const OpCall&) { return {}; }
std::vector<Type> infer_constant(const OpCall& call) {
  const Tensor& t = call.attributes.get<Tensor>("value");
  return {{t.dtype(), std::vector<Dim>(t.shape().begin(), t.shape().end())}};
}

const OpDef kEveryOp{.name = "Every", .doc = "A field of each kind.", .fields = kEvery, .max_operands = -1, .infer = infer_every};
const OpDef kSameOp{.name = "Same", .doc = "Its operand.", .min_operands = 1, .max_operands = 1, .infer = infer_same};
const OpDef kBodyOp{.name = "Body", .doc = "Owns regions.", .min_operands = 1, .max_operands = 3, .infer = infer_same};
const OpDef kSinkOp{.name = "Sink", .doc = "Has no result.", .max_operands = 2, .infer = infer_sink};
const OpDef kConstantOp{
    .name = "Constant", .doc = "A tensor.", .fields = {{"value", FieldKind::tensor, Tensor()}}, .max_operands = 0, .infer = infer_constant};

const std::array<std::string, 6> kSymbols = {"B", "S", "T.past", "batch_size", "@tp", "@cp"};

}  // namespace

const OpSet& small_ops() {
  static const OpSet set({&kEveryOp, &kSameOp, &kBodyOp, &kSinkOp, &kConstantOp});
  return set;
}

std::int64_t Random::integer() {
  switch (below(8)) {
    case 0: return INT64_MAX;
    case 1: return INT64_MIN;
    case 2: return static_cast<std::int64_t>(bits());
    default: return below(41) - 20;
  }
}

double Random::real() {
  if (chance(50)) return below(100) / 8.0 - 3;
  const std::uint64_t code = chance(30) ? bits() | 0x7ff0000000000000u : bits();
  double value;
  std::memcpy(&value, &code, sizeof(value));
  return value;
}

std::string Random::name() {
  static const std::array<std::string, 12> kOdd = {"a b", "\"", "back\\slash", "line\nend", "tab\t", "ümläut",
                                                   "%x",  "^",  "{}",          "_",         "#",     "onnx::MatMul_7"};
  static const std::array<std::string, 7> kUsual = {"h", "x.1", "/layer/MatMul_output_0", "t", "t.1", "7", "a-b"};
  std::string text = chance(20) ? kOdd[static_cast<std::size_t>(below(12))] : kUsual[static_cast<std::size_t>(below(7))];
  if (chance(40)) text += std::to_string(below(10));
  if (chance(3)) text += std::string(1, '\x01') + "\r\x7f";
  return text;
}

Dim Random::dim(int depth) {
  if (depth == 0 || chance(40))
    return chance(50) ? Dim(chance(10) ? integer() : below(600)) : Dim::symbol(kSymbols[static_cast<std::size_t>(below(6))]);
  try {
    const Dim a = dim(depth - 1), b = dim(depth - 1);
    switch (below(9)) {
      case 0: return a - b;
      case 1: return a * b;
      case 2: return b == Dim(0) ? a : floor_div(a, b);
      case 3: return b == Dim(0) ? a : ceil_div(a, b);
      case 4: return b == Dim(0) ? a : mod(a, b);
      case 5: return min(a, b);
      case 6: return max(a, b);
      default: return a + b;
    }
  } catch (const Error&) {  // overflow
    return Dim(below(100));
  }
}

std::vector<Dim> Random::dims() {
  std::vector<Dim> out;
  for (int i = below(4); i > 0; --i) out.push_back(dim());
  return out;
}

Tensor Random::tensor() {
  const DType type = dtype();
  Shape shape;
  for (int i = below(4); i > 0; --i) shape.push_back(below(chance(5) ? 12 : 4));
  if (bits() % 10 == 0) shape = {2, 200};
  if (tandem::bits(type) == 4) shape.push_back(2);
  Tensor t(type, shape);
  const bool splat = chance(20);
  std::uint64_t code = this->bits();
  for (std::int64_t i = 0; i < t.count(); ++i) {
    if (!splat) code = chance(50) ? this->bits() : static_cast<std::uint64_t>(below(2));
    set_element_bits(type, t.mutable_data(), i, code);
  }
  return t;
}

Mesh Random::mesh() {
  std::vector<MeshAxis> axes;
  for (const char* name : {"dp", "tp", "odd axis", "cp"})
    if (chance(60)) axes.push_back({name, 1 + below(4)});
  return Mesh(std::move(axes));
}

Sharding Random::sharding(int rank, const Mesh& mesh) {
  Sharding s;
  if (chance(50)) return s;
  std::vector<std::string> free;
  for (const MeshAxis& a : mesh.axes()) free.push_back(a.name);
  const auto next = [&] {
    std::string axis = free.back();
    free.pop_back();
    return axis;
  };
  if (chance(80)) s.dims.resize(static_cast<std::size_t>(rank));
  for (DimSharding& d : s.dims)
    for (int i = below(3); i > 0; --i) {
      d.push_back({dim(2), {}});
      while (!free.empty() && chance(40)) d.back().axes.push_back(next());
    }
  if (!free.empty() && chance(30)) s.partial.push_back({next(), static_cast<Reduction>(below(5))});
  if (!free.empty() && chance(30)) s.varying.push_back(next());
  return s;
}

RecipePtr Random::recipe(int depth) {
  if (depth == 0 || chance(20))
    return Recipe::from_source(name(), chance(70) ? DType::f32 : dtype(), {2 * (1 + below(8)), 2 * (1 + below(8))});
  RecipePtr of = recipe(depth - 1);
  const int axis = of->shape.empty() ? -1 : below(static_cast<int>(of->shape.size()));
  if (axis < 0 || tandem::bits(of->dtype) == 4) return of;
  const std::int64_t extent = of->shape[static_cast<std::size_t>(axis)];
  switch (below(6)) {
    case 0: return Recipe::slice(of, axis, chance(50) ? Dim(below(5)) : Dim::symbol("@tp") * Dim(1 + below(9)), 1 + below(6));
    case 1: return Recipe::concat({of, Recipe::cast(of, of->dtype), Recipe::pad(of, axis, extent)}, axis);
    case 2: {
      std::vector<std::int64_t> permutation;
      for (std::size_t i = of->shape.size(); i-- > 0;) permutation.push_back(static_cast<std::int64_t>(i));
      return Recipe::transpose(of, permutation);
    }
    case 3: return Recipe::reshape(of, {element_count(of->shape), 1});
    case 4: return Recipe::cast(of, chance(50) ? DType::f16 : DType::bf16);
    default: return Recipe::pad(of, axis, extent + below(3));
  }
}

AttributeValue Random::value(const Field& field) {
  const auto integers = [&] {
    std::vector<std::int64_t> v;
    for (int i = below(4); i > 0; --i) v.push_back(integer());
    return v;
  };
  switch (field.kind) {
    case FieldKind::integer: return integer();
    case FieldKind::real: return real();
    case FieldKind::boolean: return chance(50);
    case FieldKind::text:
      return field.words.empty() ? name() : field.words[static_cast<std::size_t>(below(static_cast<int>(field.words.size())))];
    case FieldKind::integers: return integers();
    case FieldKind::dim: return dim();
    case FieldKind::dims: return dims();
    case FieldKind::dtype: return dtype();
    case FieldKind::tensor: return tensor();
    case FieldKind::rank_lists: break;
  }
  RankLists lists;
  for (int i = below(3); i > 0; --i) lists.push_back(integers());
  return lists;
}

namespace {

class Generator {
 public:
  Generator(std::uint64_t seed, const OpSet& ops, bool inferred)
      : r_(seed), ops_(ops), inferred_(inferred), module_(std::make_unique<Module>(ops)) {}

  std::unique_ptr<Module> make() {
    module_->mesh = r_.mesh();
    for (int i = r_.below(3); i > 0; --i) module_->notices.push_back(r_.name());
    for (int i = r_.below(5); i > 0; --i) module_->add_weight(r_.name(), r_.recipe(), r_.chance(20));
    for (int i = r_.below(3); i > 0; --i) module_->add_source(r_.name(), r_.tensor());
    for (int i = 1 + r_.below(3); i > 0; --i) {
      Graph& graph = module_->add_graph(i == 1 ? "main" : r_.name() + std::to_string(i));
      for (int p = r_.below(3); p > 0; --p) graph.profiles.push_back(profile());
      std::vector<Value*> visible;
      fill(graph, visible, 0);
    }
    return std::move(module_);
  }

 private:
  Profile profile() {
    Profile p;
    for (const char* symbol : {"B", "S", "T.past"})
      if (r_.chance(50)) p[symbol] = {r_.below(3), 3 + r_.below(50), 60 + r_.below(1000)};
    return p;
  }

  void fill(Graph& graph, std::vector<Value*>& visible, int depth) {
    const auto add = [&](Value* v) {
      v->sharding = r_.sharding(v->type.rank(), module_->mesh);
      visible.push_back(v);
    };
    for (int i = r_.below(3); i > 0; --i) add(graph.add_input(r_.name(), r_.type()));
    for (const auto& w : module_->weights())
      if (r_.chance(40)) add(graph.weight_value(*w));
    for (int i = r_.below(3); i > 0; --i) graph.constraints.push_back({r_.dim(), r_.dim(), r_.chance(50) ? r_.name() : ""});
    for (int i = r_.below(12); i > 0; --i)
      if (Node* n = node(graph, visible, depth))
        for (const auto& v : n->results()) add(v.get());
    for (int i = r_.below(3); i > 0 && !visible.empty(); --i) {
      Value* v = visible[static_cast<std::size_t>(r_.below(static_cast<int>(visible.size())))];
      graph.outputs().push_back({r_.chance(50) ? v->name() : r_.name() + std::to_string(i), v});
    }
  }

  Node* node(Graph& graph, const std::vector<Value*>& visible, int depth) {
    const OpDef& op = *ops_.all()[static_cast<std::size_t>(r_.below(static_cast<int>(ops_.all().size())))];
    std::vector<Value*> operands;
    const int most = op.max_operands < 0 ? 4 : op.max_operands;
    const int count = op.min_operands + (most > op.min_operands ? r_.below(most - op.min_operands + 1) : 0);
    for (int i = 0; i < count; ++i) {
      const bool absent = i >= op.min_operands && r_.chance(20);
      if (!absent && visible.empty()) return nullptr;
      operands.push_back(absent ? nullptr : visible[static_cast<std::size_t>(r_.below(static_cast<int>(visible.size())))]);
    }
    Attributes values(&op.fields);
    for (std::size_t i = 0; i < op.fields.size(); ++i)
      if (r_.chance(40)) values.values()[i] = r_.value(op.fields[i]);
    if (values.has("count")) values.set("count", std::int64_t{r_.below(4)});
    std::vector<std::pair<std::string, Type>> results;
    if (inferred_) {
      OpCall call{&op, values, {}, {}};
      for (const Value* v : operands) call.operands.push_back(v ? std::optional(v->type) : std::nullopt);
      for (const Type& t : op.infer(call)) results.emplace_back(r_.chance(50) ? r_.name() : "", t);
    } else {
      for (int i = r_.below(4); i > 0; --i) results.emplace_back(r_.name(), r_.type());
    }
    Node* node = graph.add_typed(op, operands, std::move(values), r_.chance(60) ? r_.name() : "", std::move(results));
    if (r_.chance(20)) node->note = r_.name();
    if (op.name == "Body" && depth < 3)
      for (int i = r_.below(3); i > 0; --i) {
        std::vector<Value*> inner = visible;
        fill(node->add_region(), inner, depth + 1);
      }
    return node;
  }

  Random r_;
  const OpSet& ops_;
  bool inferred_;
  std::unique_ptr<Module> module_;
};

}  // namespace

std::unique_ptr<Module> random_module(std::uint64_t seed, const OpSet& ops, bool inferred) { return Generator(seed, ops, inferred).make(); }

}  // namespace tandem::testing
