// channels_last: convolutions, and what lies between them, have the channels of their images in the last dimension, as cuDNN's kernels of
// 16-bit floats read and write them. A region is what such nodes join; it is rewritten where its edges, which get a Transpose, are less
// than what its convolutions would bring into that layout and back.
#include <algorithm>
#include <map>
#include <set>

#include "core/numeric.h"
#include "ops/conv/window.h"
#include "passes/image_nodes.h"
#include "passes/match.h"
#include "passes/passes.h"
#include "passes/pipeline.h"

namespace tandem::passes {
namespace {

constexpr std::size_t kX = 0, kWeight = 1;
const std::vector<std::int64_t> kToLast = {0, 2, 3, 1}, kToFirst = {0, 3, 1, 2};

Sharding permuted(const Sharding& of, const std::vector<std::int64_t>& permutation) {
  Sharding s = of;
  if (!s.dims.empty())
    for (std::size_t d = 0; d < permutation.size(); ++d) s.dims[d] = of.dims[static_cast<std::size_t>(permutation[d])];
  return s;
}

using Region = std::vector<Node*>;  // in the order of the graph

class Regions {
 public:
  Regions(const Graph& graph, bool everywhere) {
    const std::vector<Node*> nodes = graph.node_list();
    for (const Node* node : nodes)
      if (everywhere || !node->is("Conv") || suits_channels_last(*node))
        if (const auto images = images_of(*node)) operands_[node] = *images;
    for (const Node* node : nodes)
      if (narrows_what_enters(*node)) operands_.erase(node);
    for (auto node = nodes.rbegin(); node != nodes.rend(); ++node)
      if (widens_what_leaves(**node)) operands_.erase(*node);
    for (const auto& [node, operands] : operands_) join(*node, operands);
    std::map<const Value*, std::size_t> at;
    for (Node* node : nodes) {
      if (!operands_.contains(node)) continue;
      const auto [found, fresh] = at.try_emplace(root_of(node->operand(image_operands(*node)[0])), all_.size());
      if (fresh) all_.emplace_back();
      all_[found->second].push_back(node);
    }
  }

  const std::vector<Region>& all() const { return all_; }
  const std::vector<std::size_t>& image_operands(const Node& node) const { return operands_.at(&node); }
  // The images that a node reads, and makes.
  std::vector<Value*> images(const Node& node) const {
    std::vector<Value*> images;
    for (const std::size_t i : image_operands(node)) images.push_back(node.operand(i));
    if (!node.is("Reduce")) images.push_back(node.result());
    return images;
  }
  bool makes(const Value& image) const {
    return image.producer() && operands_.contains(image.producer()) && !image.producer()->is("Reduce");
  }
  bool is_used_otherwise(const Value& image) const {
    return image.graph().is_output(&image) || !std::ranges::all_of(image.uses(), [&](const Use& use) { return reads_image(use); });
  }

 private:
  // Casts at the edges stay outside, so that fewer bytes are transposed.
  bool narrows_what_enters(const Node& node) const {
    if (!operands_.contains(&node) || !node.is("Cast")) return false;
    return bits(node.operand(0)->type.dtype) > bits(node.result()->type.dtype) && !makes(*node.operand(0));
  }
  bool widens_what_leaves(const Node& node) const {
    if (!operands_.contains(&node) || !node.is("Cast")) return false;
    if (bits(node.operand(0)->type.dtype) >= bits(node.result()->type.dtype)) return false;
    return std::ranges::none_of(node.result()->uses(), [&](const Use& use) { return reads_image(use); });
  }
  bool reads_image(const Use& use) const {
    const auto found = operands_.find(use.node);
    return found != operands_.end() && std::ranges::count(found->second, static_cast<std::size_t>(use.operand)) > 0;
  }

  void join(const Node& node, const std::vector<std::size_t>& operands) {
    for (const Value* image : images(node)) {
      const Value *a = root_of(image), *b = root_of(node.operand(operands[0]));
      parents_[a] = b;
    }
  }

  const Value* root_of(const Value* value) {
    const auto found = parents_.find(value);
    if (found == parents_.end() || found->second == value) return value;
    return found->second = root_of(found->second);
  }

  std::map<const Node*, std::vector<std::size_t>> operands_;
  std::map<const Value*, const Value*> parents_;
  std::vector<Region> all_;
};

bool saves(const Region& region, const Regions& regions) {
  double moved_now = 0, moved_then = 0;
  std::set<const Value*> seen;
  for (const Node* node : region) {
    if (is_dense_conv(*node)) moved_now += typical_bits(*node->operand(kX)) + typical_bits(*node->result());
    for (const Value* image : regions.images(*node)) {
      if (image->weight() || !seen.insert(image).second) continue;
      if (!regions.makes(*image) || regions.is_used_otherwise(*image)) moved_then += typical_bits(*image);
    }
  }
  return moved_then < moved_now;
}

// Puts nodes with the channels last beside those that they replace, which keep their results until all are there.
class Rewriting {
 public:
  Rewriting(Graph& graph, const Regions& regions) : graph_(graph), regions_(regions) {}

  void rewrite(const Region& region) {
    std::map<const Value*, Value*> means;
    for (Node* node : region) {
      if (node->is("Reduce")) means[node->result()] = reduced(*node);
      else last_[node->result()] = made(*node);
    }
    for (Node* node : region) {
      Value* old = node->result();
      if (node->is("Reduce")) graph_.replace_uses(old, means.at(old));
      else if (regions_.is_used_otherwise(*old)) graph_.replace_uses(old, transposed(last_.at(old), kToFirst, *node));
    }
  }

 private:
  Value* transposed(Value* value, const std::vector<std::int64_t>& permutation, Node& before) {
    Value* y = builder_before(before).add("Transpose", {value}, {{"permutation", permutation}});
    y->sharding = permuted(value->sharding, permutation);
    return y;
  }

  Value* weight_of(const Value& like, RecipePtr recipe) {
    return graph_.weight_value(graph_.module().add_weight(like.weight()->name, std::move(recipe), like.weight()->frozen));
  }

  // A weight is brought there by its recipe.
  Value* to_last(Value* value, Node& before) {
    Value*& known = last_[value];
    if (known) return known;
    known = value->weight() ? weight_of(*value, Recipe::transpose(value->weight()->recipe, kToLast)) : transposed(value, kToLast, before);
    known->sharding = permuted(value->sharding, kToLast);
    return known;
  }

  // Channels of zeros behind those there are, which lie along `axis`.
  Value* widened(Value* value, int axis, std::int64_t channels, Node& before) {
    Value*& known = wide_[value];
    if (known) return known;
    std::vector<Dim> pads(8, Dim(0));
    pads[static_cast<std::size_t>(axis) + 4] = Dim(channels) - value->type.dims[static_cast<std::size_t>(axis)];
    known = value->weight() ? weight_of(*value, Recipe::pad(value->weight()->recipe, axis, channels))
                            : builder_before(before).add("Pad", {value}, {{"pads", pads}});
    known->sharding = value->sharding;
    return known;
  }

  // Into what kernels read at once; an image that comes from elsewhere is widened before it is transposed.
  void set_convolved(Node& node, std::vector<Value*>& operands) {
    Value *&x = operands[kX], *&w = operands[kWeight];
    const std::int64_t channels = is_dense_conv(node) ? x->type.dims[1].value().value_or(0) : 0;
    const std::int64_t wide = round_up(channels, window::kChannelMultiple);
    if (wide != channels) w = widened(w, 1, wide, node);
    if (wide != channels && !last_.contains(x)) x = widened(x, 1, wide, node);
    x = to_last(x, node);
    if (x->type.dims[3] != Dim(wide) && wide != channels) x = widened(x, 3, wide, node);
    w = to_last(w, node);
  }

  Value* made(Node& node) {
    NamedAttributes attributes = named(node.attributes);
    for (auto& [name, value] : attributes) {
      if (name == "layout") value = std::string("channels_last");
      if (node.is("Concat") && name == "axis") value = std::int64_t{3};
    }
    std::vector<Value*> operands = node.operands();
    if (node.is("Conv")) set_convolved(node, operands);
    for (std::size_t i = node.is("Conv") ? kWeight : kX; i < operands.size(); ++i) {
      if (std::ranges::count(regions_.image_operands(node), i) > 0) operands[i] = to_last(operands[i], node);
      else if (node.op().pointwise && operands[i] && is_channel_column(operands[i]->type)) operands[i] = row_of(operands[i], node);
    }
    Value* y = builder_before(node).add(node.op().name, operands, attributes);
    y->producer()->note = node.note;
    y->sharding = permuted(node.result()->sharding, kToLast);
    return y;
  }

  // [c,1,1] as [c], which broadcasts over what has the channels last.
  Value* row_of(Value* column, Node& before) {
    const Dim channels = column->type.dims[0];
    GraphBuilder builder = builder_before(before);
    const bool by_recipe = column->weight() && channels.is_constant();
    Value* row = by_recipe ? weight_of(*column, Recipe::reshape(column->weight()->recipe, {channels.constant()}))
                           : reshape(builder, column, {channels});
    row->sharding = column->sharding;
    if (!row->sharding.dims.empty()) row->sharding.dims.resize(1);
    return row;
  }

  // [n,c], opened again where the extents of 1 were kept.
  Value* reduced(Node& node) {
    NamedAttributes attributes = named(node.attributes);
    for (auto& [name, value] : attributes) {
      if (name == "axes") value = std::vector<std::int64_t>{1, 2};
      if (name == "keepdims") value = false;
    }
    GraphBuilder builder = builder_before(node);
    const Sharding& sharding = node.result()->sharding;
    Value* flat = builder.add("Reduce", {to_last(node.operand(kX), node)}, attributes);
    flat->sharding = sharding;
    if (!sharding.dims.empty()) flat->sharding.dims.resize(2);
    flat->producer()->note = node.note;
    Value* y = reshape(builder, flat, node.result()->type.dims);
    y->sharding = sharding;
    return y;
  }

  Graph& graph_;
  const Regions& regions_;
  std::map<const Value*, Value*> last_, wide_;  // with the channels last; with more channels, in their own layout
};

}  // namespace

bool channels_last(Module& module, const PassOptions& options) {
  if (options.channels_last == ChannelsLast::off) return false;
  const bool everywhere = options.channels_last == ChannelsLast::everywhere;
  bool changed = false;
  for (const auto& graph : module.graphs()) {
    const Regions regions(*graph, everywhere);
    Rewriting rewriting(*graph, regions);
    for (const Region& region : regions.all()) {
      const bool convolves = std::ranges::any_of(region, [](const Node* node) { return node->is("Conv"); });
      if (everywhere ? !convolves : !saves(region, regions)) continue;
      rewriting.rewrite(region);
      changed = true;
    }
    if (changed) graph->erase_dead();
  }
  return changed;
}

}  // namespace tandem::passes
