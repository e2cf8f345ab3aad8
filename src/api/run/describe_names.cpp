// What names and recipes tell: layers of steps, and how weights are cut.
#include <algorithm>
#include <cctype>
#include <optional>

#include "api/run/describe_program.h"

namespace tandem {
namespace {

using Axes = std::vector<std::vector<std::string>>;

std::vector<std::string> words_of(const std::string& name) {
  std::vector<std::string> words;
  std::string word;
  for (const char c : name + '/') {
    if (c != '/' && c != '.') word += c;
    else if (!word.empty()) words.push_back(std::exchange(word, ""));
  }
  return words;
}

bool is_number(const std::string& word) {
  return std::ranges::all_of(word, [](unsigned char c) { return std::isdigit(c); });
}

// The layer that a name tells; empty for one in a part without a number, nothing for one that tells no part at all.
std::optional<std::string> layer_of(const std::string& name) {
  const std::vector<std::string> words = words_of(name);
  if (words.size() < 2 && !name.starts_with('/')) return std::nullopt;
  std::string layer;
  for (std::size_t i = 0; i + 1 < words.size(); ++i) {
    layer += (layer.empty() ? "" : ".") + words[i];
    if (is_number(words[i])) return layer;
  }
  return "";
}

std::optional<std::string> layer_of_weights(const Plan& plan, const Program& program, const Step& step) {
  std::optional<std::string> found;
  for (const int operand : step.operands) {
    const int weight = operand < 0 ? -1 : program.values[static_cast<std::size_t>(operand)].weight;
    if (weight < 0 || plan.weights[static_cast<std::size_t>(weight)].frozen) continue;
    std::vector<std::string> sources;
    plan.weights[static_cast<std::size_t>(weight)].recipe->collect_sources(sources);
    for (const std::string& source : sources) {
      const auto layer = layer_of(source);
      if (layer && !layer->empty()) return layer;
      if (layer) found = layer;
    }
  }
  return found;
}

void add(std::vector<std::string>& into, const std::vector<std::string>& axes) {
  for (const std::string& axis : axes)
    if (std::ranges::find(into, axis) == into.end()) into.push_back(axis);
}

// A run of dimensions that a reshape merges or splits: what cuts any of them cuts the first one after.
Axes reshaped(const Axes& axes, const Shape& from, const Shape& to) {
  Axes out(to.size());
  std::size_t i = 0, o = 0;
  while (i < from.size() && o < to.size()) {
    const std::size_t first = o;
    std::int64_t before = from[i], after = to[o];
    add(out[first], axes[i]);
    while (before != after) {
      if (before < after ? i + 1 >= from.size() : o + 1 >= to.size()) return out;
      if (before < after) before *= from[++i], add(out[first], axes[i]);
      else after *= to[++o];
    }
    ++i, ++o;
  }
  return out;
}

}  // namespace

std::vector<std::vector<std::string>> split_of(const Recipe& recipe) {
  Axes axes(recipe.shape.size());
  if (recipe.inputs.empty()) return axes;
  if (recipe.kind == Recipe::Kind::concat) {
    for (const RecipePtr& part : recipe.inputs) {
      const Axes cut = split_of(*part);
      for (std::size_t d = 0; d < axes.size(); ++d) add(axes[d], cut[d]);
    }
    return axes;
  }
  const Recipe& input = *recipe.inputs[0];
  const Axes cut = split_of(input);
  if (recipe.kind == Recipe::Kind::transpose) {
    for (std::size_t d = 0; d < axes.size(); ++d) axes[d] = cut[static_cast<std::size_t>(recipe.permutation[d])];
    return axes;
  }
  if (recipe.kind == Recipe::Kind::reshape) return reshaped(cut, input.shape, recipe.shape);
  axes = cut;
  if (recipe.kind == Recipe::Kind::slice) {
    std::set<std::string> symbols;
    recipe.begin.collect_symbols(symbols);
    for (const std::string& symbol : symbols) add(axes[static_cast<std::size_t>(recipe.axis)], {symbol.substr(1)});
  }
  return axes;
}

std::vector<std::string> layers_of(const Plan& plan, const Program& program) {
  std::vector<std::string> layers;
  std::vector<std::size_t> untold;  // steps whose names tell nothing, nor what they compute with
  std::vector<bool> tells;          // per step: its own name or weights say where it belongs, if only to no layer
  std::vector<int> made_by(program.values.size(), -1);
  const auto inherited = [&](const Step& step) {
    int latest = -1;
    for (const int operand : step.operands)
      for (int v = operand; v >= 0; v = program.values[static_cast<std::size_t>(v)].alias_of) {
        const int maker = made_by[static_cast<std::size_t>(v)];
        if (maker > latest && (tells[static_cast<std::size_t>(maker)] || !layers[static_cast<std::size_t>(maker)].empty())) latest = maker;
      }
    return latest < 0 ? std::string() : layers[static_cast<std::size_t>(latest)];
  };
  for (const Step& step : program.steps) {
    const auto number = layers.size();
    std::optional<std::string> layer = layer_of(step.node);
    if (!layer) layer = layer_of_weights(plan, program, step);
    const bool told = layer.has_value();
    if (!layer) layer = inherited(step);
    if (layer->empty() && !told) untold.push_back(number);
    for (const int result : step.results) made_by[static_cast<std::size_t>(result)] = static_cast<int>(number);
    layers.push_back(*layer);
    tells.push_back(told);
  }
  // Between two steps of one layer they belong to it.
  for (std::size_t i = 0; i < untold.size();) {
    const std::size_t first = untold[i];
    std::size_t end = first;
    while (i < untold.size() && untold[i] == end) ++end, ++i;
    const bool within = first > 0 && end < layers.size() && layers[first - 1] == layers[end];
    for (std::size_t s = first; within && s < end; ++s) layers[s] = layers[end];
  }
  return layers;
}

}  // namespace tandem
