#include "ops/op_test.h"

#include <cmath>

#include "ops/shape_rules.h"

namespace tandem::testing {

Tensor waves(double seed, Shape shape, DType dtype) {
  std::vector<double> values(static_cast<std::size_t>(element_count(shape)));
  for (std::size_t i = 0; i < values.size(); ++i) values[i] = std::sin(0.7 * static_cast<double>(i) + seed);
  return Tensor::of(dtype, std::move(shape), values);
}

Tensor numbers(Shape shape, std::vector<double> values, DType dtype) { return Tensor::of(dtype, std::move(shape), values); }
Tensor ints(Shape shape, std::vector<std::int64_t> values, DType dtype) { return Tensor::of_ints(dtype, std::move(shape), values); }

namespace {

std::vector<Dim> parse_dims(const std::string& text) {
  std::vector<Dim> dims;
  std::string word;
  int depth = 0;
  for (const char c : text + ",") {
    depth += (c == '(') - (c == ')');
    if (c == ',' && depth == 0 && !word.empty()) dims.push_back(Dim::parse(word)), word.clear();
    else word += c;
  }
  return dims;
}

Type type_of(const Tensor& tensor) { return {tensor.dtype(), dims_of_shape(tensor.shape())}; }

}  // namespace

Type type_of(DType dtype, const std::string& dims) { return {dtype, parse_dims(dims)}; }

OpCall call_of(const OpDef& op, std::vector<std::optional<Type>> operands, const NamedAttributes& attributes) {
  OpCall call{&op, Attributes(&op.fields), std::move(operands), {}};
  for (const auto& [name, value] : attributes) call.attributes.set(name, value);
  call.results = op.infer(call);
  return call;
}

std::vector<Type> infer(const OpDef& op, std::vector<std::optional<Type>> operands, const NamedAttributes& attributes) {
  return call_of(op, std::move(operands), attributes).results;
}

std::vector<Tensor> evaluate_all(const OpDef& op, std::vector<std::optional<Tensor>> operands, const NamedAttributes& attributes) {
  std::vector<std::optional<Type>> types;
  std::vector<Tensor> values;
  for (const auto& t : operands) {
    types.push_back(t ? std::optional(type_of(*t)) : std::nullopt);
    values.push_back(t ? *t : Tensor());
  }
  const OpCall call = call_of(op, types, attributes);
  const std::vector<Tensor> results = op.evaluate(call, values);
  EXPECT_EQ(results.size(), call.results.size());
  for (std::size_t i = 0; i < results.size(); ++i) EXPECT_EQ(type_of(results[i]), call.results[i]) << op.name;
  return results;
}

Tensor evaluate(const OpDef& op, std::vector<std::optional<Tensor>> operands, const NamedAttributes& attributes) {
  return evaluate_all(op, std::move(operands), attributes).at(0);
}

std::string rule_text(const OpDef& op, std::vector<std::optional<Type>> operands, const NamedAttributes& attributes) {
  const OpCall call = call_of(op, std::move(operands), attributes);
  const ShardingRule rule = op.rule ? op.rule(call) : whole_rule(call);
  const auto side = [&](const std::vector<std::vector<ShardingRule::DimFactors>>& values) {
    std::vector<std::string> texts;
    for (const auto& dims : values) {
      std::vector<std::string> words;
      for (const auto& factors : dims) {
        std::string word;
        for (const int f : factors) {
          const auto& factor = rule.factors.at(static_cast<std::size_t>(f));
          word += static_cast<char>('a' + f);
          if (factor.role == ShardingRule::Role::whole) word += '!';
          if (factor.role == ShardingRule::Role::contract) word += fmt::format("+{}", to_string(factor.reduction));
        }
        words.push_back(word.empty() ? "1" : word);
      }
      texts.push_back(fmt::format("{}", fmt::join(words, " ")));
    }
    return fmt::format("{}", fmt::join(texts, ", "));
  };
  return side(rule.operands) + " -> " + side(rule.results);
}

std::string folded(const OpDef& op, const std::vector<std::string>& contents, const NamedAttributes& attributes, DType dtype) {
  std::vector<std::optional<Type>> types;
  std::vector<std::optional<DimContent>> values;
  for (std::size_t i = 0; i < contents.size(); ++i) {
    const std::vector<Dim> dims = parse_dims(contents[i]);
    const bool condition = op.name == "Where" && i == 0;
    types.push_back(Type{condition ? DType::boolean : dtype, {static_cast<std::int64_t>(dims.size())}});
    values.emplace_back(dims);
  }
  const auto result = op.fold(call_of(op, types, attributes), values);
  if (!result) return "?";
  std::vector<std::string> words;
  for (const Dim& d : *result) words.push_back(d.to_string());
  return fmt::format("{}", fmt::join(words, ","));
}

void expect_near(const Tensor& actual, const std::vector<double>& expected, double tolerance) {
  ASSERT_EQ(actual.count(), static_cast<std::int64_t>(expected.size()));
  for (std::size_t i = 0; i < expected.size(); ++i) {
    const double value = actual.at(static_cast<std::int64_t>(i));
    if (std::isnan(expected[i]) || std::isinf(expected[i]))
      EXPECT_TRUE(value == expected[i] || (value != value && expected[i] != expected[i])) << i;
    else EXPECT_NEAR(value, expected[i], tolerance) << "element " << i;
  }
}

void expect_error(ErrorCode code, const std::string& part, const std::function<void()>& f) {
  try {
    f();
    ADD_FAILURE() << "expected an error that says: " << part;
  } catch (const Error& error) {
    EXPECT_EQ(to_string(error.code()), to_string(code)) << error.what();
    EXPECT_NE(std::string(error.what()).find(part), std::string::npos) << error.what();
  }
}

Imported& Imported::input(Type type) {
  node.inputs.push_back(graph.add_input("x" + std::to_string(node.inputs.size()), std::move(type)));
  return *this;
}

Imported& Imported::input(Tensor value) {
  input(type_of(value));
  inputs.emplace(node.inputs.back()->name(), std::move(value));
  return *this;
}

Imported& Imported::constant(Tensor value) {
  node.inputs.push_back(builder.constant(std::move(value)));
  return *this;
}

Imported& Imported::absent() {
  node.inputs.push_back(nullptr);
  return *this;
}

Imported& Imported::with(const std::string& name, ForeignAttribute value) {
  node.attributes.insert_or_assign(name, std::move(value));
  return *this;
}

std::vector<std::string> Imported::run_rule() {
  const OnnxRule* chosen = nullptr;
  for (const OpDef* op : all_ops().all())
    for (const OnnxRule& rule : op->onnx)
      if (rule.op_type == node.op_type && rule.domain == node.domain && rule.since <= node.opset) chosen = &rule;
  check(chosen != nullptr, "no rule for " + node.op_type);
  results = chosen->import(node, builder);
  std::vector<std::string> names;
  for (const auto& n : graph.nodes())
    if (!n->is("Constant")) names.emplace_back(n->op().name);
  return names;
}

const Node* Imported::find(std::string_view op) const {
  for (const auto& n : graph.nodes())
    if (n->is(op)) return n.get();
  return nullptr;
}

Tensor Imported::evaluate(std::size_t result) {
  if (results.empty()) run_rule();
  std::map<const Value*, Tensor> values;
  for (const auto& v : graph.inputs()) values[v.get()] = inputs.at(v->name());
  for (const auto& v : graph.weight_values()) values[v.get()] = module.weight_data(*v->weight());
  for (const auto& n : graph.nodes()) {
    std::vector<Tensor> operands;
    for (const Value* v : n->operands()) operands.push_back(v ? values.at(v) : Tensor());
    const std::vector<Tensor> out = n->op().evaluate(n->call(), operands);
    for (std::size_t i = 0; i < out.size(); ++i) values[n->result(i)] = out[i];
  }
  return values.at(results.at(result));
}

}  // namespace tandem::testing
