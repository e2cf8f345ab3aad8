// fold_scales: a scale per channel behind a convolution, as batch normalization leaves it, moves into the weight; what is added per channel
// becomes one bias. That computes with the contents of weights, so modules that must stay refittable are left alone.
#include <algorithm>
#include <cmath>

#include "passes/match.h"
#include "passes/passes.h"

namespace tandem::passes {
namespace {

constexpr std::int64_t kMostChannels = 1 << 16, kLargestWeight = std::int64_t{1} << 28;
constexpr int kDepth = 8;
constexpr std::size_t kWeight = 1, kBias = 2, kResidual = 3;

// Contents that follow from constants and weights alone, and the tensors of the model that those are.
class Known {
 public:
  std::optional<Tensor> of(const Value* value, int depth = kDepth) {
    if (const auto constant = constant_of(value, kMostChannels)) {
      note(value);
      return constant;
    }
    const Node* node = value->producer();
    if (!node || depth == 0 || node->results().size() != 1 || !node->op().evaluate || !(node->op().pointwise || node->is("Reshape")))
      return std::nullopt;
    const Dim count = product(value->type.dims);
    if (!count.is_constant() || count.constant() > kMostChannels) return std::nullopt;
    std::vector<Tensor> operands;
    for (const Value* operand : node->operands()) {
      const auto known = operand ? of(operand, depth - 1) : std::nullopt;
      if (!known) return std::nullopt;
      operands.push_back(*known);
    }
    return node->op().evaluate(node->call(), operands).at(0);
  }
  void note(const Value* value) {
    if (value->weight() && !value->weight()->frozen) value->weight()->recipe->collect_sources(sources_);
  }
  void remember(Module& module) const { module.folded_sources.insert(sources_.begin(), sources_.end()); }

 private:
  std::vector<std::string> sources_;
};

// A convolution that only adds up, and what is then added per channel.
struct Sum {
  Node* conv = nullptr;
  Value* offset = nullptr;
};

// One number per channel of a convolution's result: [m,1,…].
bool is_column(const Type& type, const Type& result) {
  if (type.rank() + 1 != result.rank() || type.dtype != result.dtype || type.dims[0] != result.dims[1]) return false;
  return std::all_of(type.dims.begin() + 1, type.dims.end(), [](const Dim& d) { return d == Dim(1); });
}

Node* plain_conv(const Value* value) {
  Node* conv = made_by(value, "Conv");
  if (conv && conv->attributes.text("layout") != "channels_first") return nullptr;
  return conv && has_one_use(value) && !conv->operand(kBias) && !conv->operand(kResidual) && conv->attributes.text("activation") == "none"
             ? conv
             : nullptr;
}

std::optional<Sum> sum_of(const Value* value) {
  if (Node* conv = plain_conv(value)) return Sum{conv, nullptr};
  Node* add = made_by(value, "Add");
  if (!add || !has_one_use(value)) return std::nullopt;
  for (const std::size_t i : {0u, 1u})
    if (Node* conv = plain_conv(add->operand(i)); conv && is_column(add->operand(1 - i)->type, value->type))
      return Sum{conv, add->operand(1 - i)};
  return std::nullopt;
}

template <typename F>
Tensor each(const Tensor& of, const F& f) {
  std::vector<double> values = of.to_doubles();
  for (std::size_t i = 0; i < values.size(); ++i) values[i] = f(values[i], static_cast<std::int64_t>(i));
  return Tensor::of(of.dtype(), of.shape(), values);
}

// (conv + offset)·factor = conv' + offset·factor
Value* scaled(Node& node, const Sum& sum, const Value* column) {
  Known known;
  const auto factor = known.of(column);
  const auto weight = constant_of(sum.conv->operand(kWeight), kLargestWeight);
  const auto offset = sum.offset ? known.of(sum.offset) : std::nullopt;
  if (!factor || !weight || weight->count() == 0 || (sum.offset && !offset)) return nullptr;
  if (!std::ranges::all_of(factor->to_doubles(), [](double f) { return std::isfinite(f); })) return nullptr;
  known.note(sum.conv->operand(kWeight));
  const std::int64_t each_channel = weight->count() / factor->count();
  GraphBuilder builder = builder_before(node);
  std::vector<Value*> operands = sum.conv->operands();
  operands[kWeight] = builder.constant(each(*weight, [&](double w, std::int64_t i) { return w * factor->at(i / each_channel); }));
  Value* y = builder.add("Conv", operands, named(sum.conv->attributes));
  if (offset) y = builder.add("Add", {y, builder.constant(each(*offset, [&](double o, std::int64_t i) { return o * factor->at(i); }))});
  known.remember(builder.module());
  return y;
}

// Whether only a step that this pass rewrites as well uses the result, and takes along what was added.
bool is_taken_along(const Value* result) {
  for (const char* op : {"Mul", "Add"})
    if (const Node* user = only_user(result, op)) return is_column(user->operand(user->operand(0) == result ? 1 : 0)->type, result->type);
  return false;
}

// (conv + offset) + column; the column alone where it is computed at every step.
Value* moved(Node& node, const Sum& sum, const Value* column) {
  if (!sum.offset && (!column->producer() || column->producer()->is("Constant") || is_taken_along(node.result()))) return nullptr;
  Known known;
  const auto added = known.of(column), offset = sum.offset ? known.of(sum.offset) : std::nullopt;
  if (!added || (sum.offset && !offset)) return nullptr;
  GraphBuilder builder = builder_before(node);
  const Tensor whole = each(*added, [&](double a, std::int64_t i) { return a + (offset ? offset->at(i) : 0.0); });
  known.remember(builder.module());
  return builder.add("Add", {sum.conv->result(), builder.constant(whole)});
}

bool rewrite(Node& node) {
  const bool scales = node.is("Mul");
  if (!scales && !node.is("Add")) return false;
  for (const std::size_t i : {0u, 1u}) {
    const Value* column = node.operand(1 - i);
    const auto sum = sum_of(node.operand(i));
    if (!sum || node.operand(i)->type != node.result()->type || !is_column(column->type, node.result()->type)) continue;
    Value* y = scales ? scaled(node, *sum, column) : moved(node, *sum, column);
    if (!y) continue;
    node.graph().replace_uses(node.result(), y);
    return true;
  }
  return false;
}

}  // namespace

bool fold_scales(Module& module, const PassOptions&) { return !module.refittable && for_each_node(module, rewrite); }

}  // namespace tandem::passes
