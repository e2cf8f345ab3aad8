#include "passes/image_nodes.h"

#include <algorithm>
#include <set>

#include "ops/conv/window.h"
#include "ops/shape_rules.h"

namespace tandem::passes {
namespace {

constexpr int kRank = 4;
constexpr std::size_t kWeight = 1, kResidual = 3;

using Operands = std::optional<std::vector<std::size_t>>;

bool is_one(const Dim& d) { return d == Dim(1); }

bool has_channels_first(const Node& node) { return node.attributes.text("layout") == "channels_first"; }

Operands images_of_conv(const Node& node) {
  const Type &x = node.operand(0)->type, &y = node.result()->type;
  if (x.rank() != kRank || !has_channels_first(node)) return std::nullopt;
  const Value* residual = node.operand(kResidual);
  if (!residual) return std::vector<std::size_t>{0};
  if (residual->type.dims != y.dims) return std::nullopt;
  return std::vector<std::size_t>{0, kResidual};
}

bool broadcasts(const std::vector<Dim>& dims, const std::vector<Dim>& to) {
  for (std::size_t d = 0; d < dims.size(); ++d)
    if (dims[d] != to[d] && !is_one(dims[d])) return false;
  return true;
}

// Over the whole of each image.
bool reduces_images(const Node& node) {
  const Type& x = node.operand(0)->type;
  return x.rank() == kRank && normalize_axes(node.attributes.integers("axes"), kRank) == std::vector<int>{2, 3};
}

Operands images_of_pointwise(const Node& node) {
  const Type& y = node.result()->type;
  std::vector<std::size_t> images;
  if (y.rank() != kRank || node.is("Pointwise")) return std::nullopt;
  for (std::size_t i = 0; i < node.operands().size(); ++i) {
    const Value* operand = node.operand(i);
    if (!operand || std::ranges::all_of(operand->type.dims, is_one)) continue;
    const bool image = operand->type.rank() == kRank && broadcasts(operand->type.dims, y.dims);
    if (image) images.push_back(i);
    else if (!is_channel_column(operand->type) || operand->type.dims[0] != y.dims[1]) return std::nullopt;
  }
  if (images.empty()) return std::nullopt;
  return images;
}

}  // namespace

Operands images_of(const Node& node) {
  if (node.results().size() != 1 || node.op().collective || !node.regions().empty() || node.operands().empty()) return std::nullopt;
  if (node.op().pointwise) return images_of_pointwise(node);
  if (node.is("Conv")) return images_of_conv(node);
  if (node.is("MaxPool") || node.is("AveragePool")) {
    if (node.operand(0)->type.rank() != kRank || !has_channels_first(node)) return std::nullopt;
    return std::vector<std::size_t>{0};
  }
  if (node.is("Reduce") && reduces_images(node)) return std::vector<std::size_t>{0};
  if (node.is("Concat") && node.result()->type.rank() == kRank && normalize_axis(node.attributes.integer("axis"), kRank) == 1) {
    std::vector<std::size_t> all(node.operands().size());
    for (std::size_t i = 0; i < all.size(); ++i) all[i] = i;
    return all;
  }
  return std::nullopt;
}

bool is_dense_conv(const Node& node) {
  return node.is("Conv") && node.operand(0)->type.rank() == kRank && node.operand(0)->type.dims[1] == node.operand(kWeight)->type.dims[1];
}

bool suits_channels_last(const Node& conv) {
  const Dim& channels = conv.operand(kWeight)->type.dims[0];
  if (bits(conv.result()->type.dtype) != 16) return false;
  return !is_dense_conv(conv) || (channels.is_constant() && channels.constant() % window::kChannelMultiple == 0);
}

bool is_channel_column(const Type& type) { return type.rank() == 3 && is_one(type.dims[1]) && is_one(type.dims[2]); }

double typical_bits(const Value& value) {
  const Dim count = product(value.type.dims);
  std::set<std::string> names;
  count.collect_symbols(names);
  const std::vector<Profile>& profiles = value.graph().profiles;
  SymbolValues symbols;
  for (const std::string& name : names) {
    const bool known = !profiles.empty() && profiles[0].contains(name);
    symbols[name] = known ? profiles[0].find(name)->second.opt : 1;
  }
  return static_cast<double>(count.evaluate(symbols)) * bits(value.type.dtype);
}

}  // namespace tandem::passes
