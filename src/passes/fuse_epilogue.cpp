// fuse_epilogue: bias, activation and residual move into the product or convolution that makes their operand, if nobody else wants it
// before. A partial sum goes to a collective first and so is never the operand of such a step.
#include <algorithm>
#include <array>
#include <utility>

#include "passes/match.h"
#include "passes/passes.h"

namespace tandem::passes {
namespace {

constexpr std::size_t kBias = 2, kResidual = 3;
constexpr std::array<std::pair<std::string_view, std::string_view>, 5> kActivations = {
    {{"Gelu", "gelu"}, {"Silu", "silu"}, {"Relu", "relu"}, {"Tanh", "tanh"}, {"Sigmoid", "sigmoid"}}};

std::string activation_of(const Node& node) {
  for (const auto& [op, word] : kActivations)
    if (node.is(op)) return std::string(node.is("Gelu") && node.attributes.text("approximate") == "tanh" ? "gelu_tanh" : word);
  return {};
}

// The product or convolution whose result only this node uses, as a whole (not partial).
Node* fusable_product(const Value* value) {
  Node* product = product_behind(value) ? product_behind(value) : made_by(value, "Conv");
  return product && has_one_use(value) && value->sharding.partial.empty() ? product : nullptr;
}

// The last step in `node`'s place: it takes operands that come after the product.
bool replace(Node& node, const Node& product, std::vector<Value*> operands, NamedAttributes attributes) {
  Value* fused = builder_before(node).add(product.op().name, std::move(operands), attributes);
  fused->sharding = node.result()->sharding;
  fused->producer()->note = product.note;
  node.graph().replace_uses(node.result(), fused);
  return true;
}

// One number per column of a product, per channel of a convolution.
bool is_bias(const Type& type, const Node& product) {
  const std::vector<Dim>& dims = product.result()->type.dims;
  if (is_product(product) || product.attributes.text("layout") == "channels_last") return type.rank() == 1 && type.dims[0] == dims.back();
  if (type.rank() + 1 != static_cast<int>(dims.size()) || type.dims[0] != dims[1]) return false;
  return std::all_of(type.dims.begin() + 1, type.dims.end(), [](const Dim& d) { return d == Dim(1); });
}

// A product adds its residual last, a convolution before it is activated.
bool takes_residual(const Node& product) {
  return !product.operand(kResidual) && (is_product(product) || product.attributes.text("activation") == "none");
}

bool fuse_add(Node& node) {
  for (std::size_t i : {0u, 1u}) {
    const Value* value = node.operand(i);
    Node* product = fusable_product(value);
    if (!product || value->type != node.result()->type) continue;
    Value* other = node.operand(1 - i);
    if (!other->sharding.partial.empty() || other->type.dtype != value->type.dtype) continue;
    const bool plain = product->attributes.text("activation") == "none" && !product->operand(kBias) && !product->operand(kResidual);
    const bool bias = plain && is_bias(other->type, *product);
    const bool residual = other->type == value->type && takes_residual(*product);
    if (!bias && !residual) continue;
    std::vector<Value*> operands = product->operands();
    operands.resize(std::max(operands.size(), bias ? kBias + 1 : kResidual + 1), nullptr);
    operands[bias ? kBias : kResidual] = other;
    return replace(node, *product, operands, named(product->attributes));
  }
  return false;
}

bool rewrite(Node& node) {
  if (node.is("Add")) return fuse_add(node);
  const std::string activation = activation_of(node);
  if (activation.empty()) return false;
  Node* product = fusable_product(node.operand(0));
  if (!product || (is_product(*product) && product->operand(kResidual)) || product->attributes.text("activation") != "none") return false;
  NamedAttributes attributes = named(product->attributes);
  for (auto& [name, value] : attributes)
    if (name == "activation") value = activation;
  return replace(node, *product, product->operands(), attributes);
}

}  // namespace

bool fuse_epilogue(Module& module, const PassOptions&) { return for_each_node(module, rewrite); }

}  // namespace tandem::passes
