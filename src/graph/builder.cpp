#include "graph/builder.h"

#include <algorithm>

#include "core/check.h"

namespace tandem {
namespace {

constexpr std::int64_t kFoldLimit = 1 << 16;  // elements of a constant worth computing early
constexpr std::int64_t kContentLimit = 1024;  // elements followed as Dims
constexpr std::int64_t kConstantLimit = 64;   // larger results become frozen weights

bool is_content(const Type& type) {
  if (is_float(type.dtype)) return false;
  const Dim count = product(type.dims);
  return count.is_constant() && count.constant() <= kContentLimit;
}

}  // namespace

std::vector<Value*> GraphBuilder::add_all(std::string_view op_name, std::vector<Value*> operands, const NamedAttributes& attributes) {
  const OpDef& op = module().op(op_name);
  Node* node = graph_->add(op, operands, attributes, context_, {}, before_);
  std::vector<Value*> results;
  for (const auto& r : node->results()) results.push_back(r.get());
  if (op.fold && results.size() == 1 && is_content(results[0]->type)) {
    std::vector<std::optional<DimContent>> contents;
    for (const Value* v : operands) contents.push_back(v ? dims_of(v) : std::nullopt);
    contents_[results[0]] = op.fold(node->call(), contents);
  }
  if (op_name == "Constant" || !op.evaluate || results.size() != 1) return results;
  std::vector<Tensor> values;
  for (const Value* v : operands) {
    if (!v) {
      values.emplace_back();
      continue;
    }
    auto known = tandem::constant_of(v, kFoldLimit);
    if (!known) return results;
    values.push_back(*known);
  }
  const OpCall call = node->call();
  const Dim count = product(call.results[0].dims);
  const bool symbolic = std::ranges::any_of(call.attributes.values(), [](const AttributeValue& v) {
    if (const auto* d = std::get_if<Dim>(&v)) return !d->is_constant();
    if (const auto* ds = std::get_if<std::vector<Dim>>(&v)) return std::ranges::any_of(*ds, [](const Dim& x) { return !x.is_constant(); });
    return false;
  });
  if (symbolic || !count.is_constant() || count.constant() > kFoldLimit) return results;
  // A weight stays refittable: only arithmetic over Constants, or over weights too small to matter, is done now.
  const bool over_weights = std::ranges::any_of(operands, [](const Value* v) { return v && v->weight(); });
  if (over_weights && (count.constant() > kConstantLimit || module().refittable)) return results;
  Value* folded = nullptr;
  try {
    folded = constant(op.evaluate(call, values).at(0));
  } catch (const Error& error) {
    throw error.at_node(node->label());
  }
  if (over_weights) remember_folded(operands);
  contents_.erase(results[0]);
  graph_->erase(*node);
  return {folded};
}

// Constants that came from the file as weights are remembered: a refit cannot reach them.
void GraphBuilder::remember_folded(const std::vector<Value*>& operands) {
  std::vector<std::string> sources;
  for (const Value* v : operands)
    if (v && v->weight() && !v->weight()->frozen) v->weight()->recipe->collect_sources(sources);
  module().folded_sources.insert(sources.begin(), sources.end());
}

Value* GraphBuilder::add(std::string_view op, std::vector<Value*> operands, const NamedAttributes& attributes) {
  const auto results = add_all(op, std::move(operands), attributes);
  check(results.size() == 1, fmt::format("{} has one result", op));
  return results[0];
}

Value* GraphBuilder::constant(Tensor value) {
  if (value.count() > kConstantLimit && is_float(value.dtype())) {
    std::string name = "folded/" + (context_.empty() ? std::string("constant") : context_);
    for (int i = 1; module().has_source(name); ++i) name = fmt::format("folded/{}.{}", context_, i);
    const RecipePtr recipe = Recipe::from_source(name, value.dtype(), value.shape());
    module().add_source(name, std::move(value));
    return graph_->weight_value(module().add_weight(name, recipe, true));
  }
  return graph_->add(module().op("Constant"), {}, {{"value", std::move(value)}}, context_, {}, before_)->result();
}

Value* GraphBuilder::scalar(DType dtype, double value) { return constant(Tensor::of(dtype, {}, std::vector<double>{value})); }

Value* GraphBuilder::dim_value(const DimContent& contents, const Shape& shape, DType dtype) {
  if (std::ranges::all_of(contents, [](const Dim& d) { return d.is_constant(); })) {
    std::vector<std::int64_t> values;
    for (const Dim& d : contents) values.push_back(d.constant());
    return constant(Tensor::of_ints(dtype, shape, values));
  }
  Value* value =
      graph_->add(module().op("DimValue"), {}, {{"values", contents}, {"shape", shape}, {"dtype", dtype}}, context_, {}, before_)->result();
  contents_[value] = contents;
  return value;
}

std::optional<DimContent> GraphBuilder::dims_of(const Value* value) {
  if (!value || !is_content(value->type)) return std::nullopt;
  if (const auto found = contents_.find(value); found != contents_.end()) return found->second;
  std::optional<DimContent> contents;
  if (const auto known = tandem::constant_of(value, kContentLimit)) {
    contents.emplace();
    for (std::int64_t v : known->to_ints()) contents->emplace_back(v);
  } else if (const Node* node = value->producer(); node && node->op().fold && node->results().size() == 1) {
    std::vector<std::optional<DimContent>> inputs;
    for (const Value* v : node->operands()) inputs.push_back(v ? dims_of(v) : std::nullopt);
    contents = node->op().fold(node->call(), inputs);
  }
  return contents_[value] = contents;
}

DimContent GraphBuilder::require_dims(const Value* value, std::string_view what) {
  check(value != nullptr, "a value whose contents are asked for");
  auto contents = dims_of(value);
  if (!contents) fail(ErrorCode::unsupported, "{} '{}' depends on data; it must follow from the input shapes", what, value->name());
  return *contents;
}

std::vector<std::int64_t> GraphBuilder::require_ints(const Value* value, std::string_view what) {
  std::vector<std::int64_t> values;
  for (const Dim& d : require_dims(value, what)) {
    if (!d.is_constant()) fail(ErrorCode::unsupported, "{} '{}' must be constant, but holds {}", what, value->name(), d.to_string());
    values.push_back(d.constant());
  }
  return values;
}

void GraphBuilder::require_equal(const Dim& a, const Dim& b) {
  if (a == b) return;
  const Range difference = (a - b).bounds(graph_->symbol_ranges());
  if (difference.min > 0 || difference.max < 0)
    fail(ErrorCode::invalid_model, "extents {} and {} can never be equal", a.to_string(), b.to_string());
  const Constraint constraint{a, b, context_};
  if (std::ranges::find(graph_->constraints, constraint) == graph_->constraints.end()) graph_->constraints.push_back(constraint);
}

Value* ForeignNode::required(std::size_t i) const {
  if (Value* v = input(i)) return v;
  fail(ErrorCode::invalid_model, "input {} is missing", i);
}

namespace {

template <typename T>
T foreign(const ForeignNode& node, const std::string& name, T otherwise, std::string_view kind) {
  const auto found = node.attributes.find(name);
  if (found == node.attributes.end()) return otherwise;
  if (const T* value = std::get_if<T>(&found->second)) return *value;
  fail(ErrorCode::invalid_model, "attribute '{}' is no {}", name, kind);
}

}  // namespace

std::int64_t ForeignNode::integer(const std::string& n, std::int64_t o) const { return foreign<std::int64_t>(*this, n, o, "integer"); }
double ForeignNode::real(const std::string& n, double o) const { return foreign<double>(*this, n, o, "number"); }
std::string ForeignNode::text(const std::string& n, const std::string& o) const { return foreign<std::string>(*this, n, o, "string"); }
std::vector<std::int64_t> ForeignNode::integers(const std::string& n, std::vector<std::int64_t> o) const {
  return foreign<std::vector<std::int64_t>>(*this, n, std::move(o), "list of integers");
}

}  // namespace tandem
