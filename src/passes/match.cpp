#include "passes/match.h"

#include <algorithm>
#include <cmath>

#include "ops/quantize/operands.h"

namespace tandem::passes {
namespace {

bool visit(Graph& graph, bool (*rewrite)(Graph&)) {
  bool changed = false;
  for (Node* node : graph.node_list())
    for (const auto& region : node->regions()) changed |= visit(*region, rewrite);
  return rewrite(graph) || changed;
}

bool visit_nodes(Graph& graph, bool (*rewrite)(Node&)) {
  bool changed = false;
  for (Node* node : graph.node_list()) {
    for (const auto& region : node->regions()) changed |= visit_nodes(*region, rewrite);
    changed |= rewrite(*node);
  }
  if (changed) graph.erase_dead();
  return changed;
}

}  // namespace

bool for_each_graph(Module& module, bool (*rewrite)(Graph&)) {
  bool changed = false;
  for (const auto& graph : module.graphs()) changed |= visit(*graph, rewrite);
  return changed;
}

bool for_each_node(Module& module, bool (*rewrite)(Node&)) {
  bool changed = false;
  for (const auto& graph : module.graphs()) changed |= visit_nodes(*graph, rewrite);
  return changed;
}

Node* made_by(const Value* value, std::string_view op) {
  Node* node = value ? value->producer() : nullptr;
  return node && node->is(op) ? node : nullptr;
}

bool has_one_use(const Value* value) { return value->uses().size() == 1 && !value->graph().is_output(value); }

bool is_product(const Node& node) { return node.is("MatMul") || node.is("DequantMatMul") || node.is("QuantMatMul"); }

Node* product_behind(const Value* value) {
  return value && value->producer() && is_product(*value->producer()) ? value->producer() : nullptr;
}

std::vector<std::size_t> column_operands(const Node& product) {
  std::vector<std::size_t> operands = {kDequantB};
  for (const std::size_t i : {kDequantBias, kDequantScale, kDequantZero})
    if (product.operand(i) && (i == kDequantBias || !is_one_number(product.operand(i)->type))) operands.push_back(i);
  return operands;
}

bool multiplies_weights(const Node& product) {
  if (!is_product(product) || product.operand(kDequantB)->type.rank() != 2) return false;
  return std::ranges::all_of(column_operands(product), [&](std::size_t i) { return product.operand(i)->weight() != nullptr; });
}

bool joins_columns(const Node& a, const Node& b) {
  const std::vector<std::size_t> columns = column_operands(a);
  if (&a.op() != &b.op() || columns != column_operands(b)) return false;
  if (a.is("DequantMatMul") && a.attributes.integer("block_size") != b.attributes.integer("block_size")) return false;
  if (a.result()->type.dtype != b.result()->type.dtype) return false;
  for (std::size_t i = 1; i < std::max(a.operands().size(), b.operands().size()); ++i) {
    const Value *x = a.operand(i), *y = b.operand(i);
    if (std::ranges::find(columns, i) == columns.end() ? x != y : x->type.dtype != y->type.dtype) return false;
  }
  return true;
}

Node* only_user(const Value* value, std::string_view op) {
  if (!has_one_use(value)) return nullptr;
  Node* node = value->uses()[0].node;
  return node->is(op) ? node : nullptr;
}

std::optional<double> number_of(const Value* value) {
  if (Node* expand = made_by(value, "Expand")) return number_of(expand->operand(0));
  const auto known = constant_of(value, 64);
  if (!known || known->count() == 0 || known->count() > 64) return std::nullopt;
  const double first = known->at(0);
  for (std::int64_t i = 1; i < known->count(); ++i)
    if (known->at(i) != first) return std::nullopt;
  return first;
}

std::optional<double> number_beside(const Value* value, const Value* beside) {
  if (!value || !beside || value->type.rank() > beside->type.rank()) return std::nullopt;
  const auto& narrow = value->type.dims;
  const auto& wide = beside->type.dims;
  for (std::size_t i = 0; i < narrow.size(); ++i)
    if (narrow[i] != Dim(1) && narrow[i] != wide[wide.size() - narrow.size() + i]) return std::nullopt;
  return number_of(value);
}

bool is_about(std::optional<double> value, double wanted, double relative) {
  return value && std::abs(*value - wanted) <= relative * std::abs(wanted);
}

std::optional<WithNumber> with_number(const Node* node) {
  if (!node || node->operands().size() != 2) return std::nullopt;
  for (std::size_t i : {1u, 0u})
    if (const auto number = number_beside(node->operand(i), node->operand(1 - i))) return WithNumber{*number, node->operand(1 - i)};
  return std::nullopt;
}

namespace {

void collect(Value* value, Product& into, int depth) {
  Node* node = value->producer();
  const bool inner = depth == 0 || has_one_use(value);
  if (node && inner && depth < 6 && node->is("Mul")) {
    if (const auto scaled = with_number(node)) {
      into.number *= scaled->number;
      collect(scaled->other, into, depth + 1);
    } else {
      collect(node->operand(0), into, depth + 1);
      collect(node->operand(1), into, depth + 1);
    }
  } else if (node && inner && depth < 6 && node->is("Div") && number_beside(node->operand(1), node->operand(0))) {
    into.number /= *number_of(node->operand(1));
    collect(node->operand(0), into, depth + 1);
  } else {
    into.factors.push_back(value);
  }
}

}  // namespace

Product product_of(Value* value) {
  Product product;
  collect(value, product, 0);
  return product;
}

std::optional<Dim> last_dim(const Value* value) {
  if (value->type.dims.empty()) return std::nullopt;
  return value->type.dims.back();
}

std::vector<Dim> leading_dims(const Value* value) {
  return {value->type.dims.begin(), value->type.dims.end() - (value->type.dims.empty() ? 0 : 1)};
}

NamedAttributes named(const Attributes& attributes) {
  NamedAttributes out;
  for (std::size_t i = 0; i < attributes.values().size(); ++i) out.emplace_back(attributes.fields()[i].name, attributes.values()[i]);
  return out;
}

GraphBuilder builder_before(Node& node) {
  GraphBuilder builder(node.graph());
  builder.set_before(&node);
  builder.set_context(node.name());
  return builder;
}

Value* reshape(GraphBuilder& builder, Value* value, std::vector<Dim> shape) {
  if (value->type.dims == shape) return value;
  return builder.add("Reshape", {value}, {{"shape", std::move(shape)}});
}

Value* slice_last(GraphBuilder& builder, Value* value, const Dim& begin, const Dim& end) {
  const std::vector<std::int64_t> axes = {value->type.rank() - 1}, steps = {1};
  return builder.add("Slice", {value}, {{"starts", std::vector{begin}}, {"ends", std::vector{end}}, {"axes", axes}, {"steps", steps}});
}

bool has_op(const Module& module, std::string_view op) { return module.ops().find(op) != nullptr; }

}  // namespace tandem::passes
