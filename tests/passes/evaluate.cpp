#include "passes/evaluate.h"

#include <cmath>
#include <set>

namespace tandem::testing {
namespace {

struct Sequence {
  std::uint64_t state = 88172645463325252ULL;
  double next() {
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return static_cast<double>(state >> 11) / 9007199254740992.0;
  }
};

Tensor random_tensor(Sequence& sequence, DType dtype, const Shape& shape) {
  std::vector<double> values(static_cast<std::size_t>(element_count(shape)));
  for (double& v : values) {
    const double u = sequence.next();
    v = is_float(dtype) ? 2 * u - 1 : dtype == DType::boolean ? u < 0.75 : static_cast<double>(static_cast<int>(4 * u));
  }
  return Tensor::of(dtype, shape, values);
}

Shape bound_shape(const Type& type, const SymbolValues& symbols) {
  Shape shape;
  for (const Dim& d : type.dims) shape.push_back(d.evaluate(symbols));
  return shape;
}

void collect(const Recipe& recipe, std::map<std::string, const Recipe*>& into) {
  if (recipe.kind == Recipe::Kind::source) into[recipe.source] = &recipe;
  for (const RecipePtr& p : recipe.inputs) collect(*p, into);
}

void collect_symbols(const Graph& graph, std::set<std::string>& into) {
  for (const auto& input : graph.inputs())
    for (const Dim& d : input->type.dims) d.collect_symbols(into);
}

}  // namespace

SymbolValues symbols_of(const Graph& graph) {
  SymbolValues values;
  std::set<std::string> names;
  collect_symbols(graph, names);
  for (const std::string& name : names) values[name] = 3;
  if (!graph.profiles.empty())
    for (const auto& [name, range] : graph.profiles[0]) values[name] = range.opt;
  return values;
}

void fill_sources(Module& module) {
  std::map<std::string, const Recipe*> sources;
  for (const auto& weight : module.weights()) collect(*weight->recipe, sources);
  Sequence sequence;
  for (const auto& [name, recipe] : sources) {
    if (module.has_source(name)) continue;
    Tensor tensor = random_tensor(sequence, recipe->dtype, recipe->shape);
    // Products keep the size of what they multiply: large scores of attention would amplify rounding beyond any tolerance.
    if (is_float(recipe->dtype) && recipe->shape.size() == 2)
      for (std::int64_t i = 0; i < tensor.count(); ++i)
        store_element(tensor.dtype(), tensor.mutable_data(), i, tensor.at(i) / std::sqrt(static_cast<double>(recipe->shape[0])));
    module.add_source(name, tensor);
  }
}

Tensors random_inputs(const Graph& graph, const SymbolValues& symbols) {
  Sequence sequence;
  Tensors inputs;
  for (const auto& input : graph.inputs())
    inputs[input->name()] = random_tensor(sequence, input->type.dtype, bound_shape(input->type, symbols));
  return inputs;
}

}  // namespace tandem::testing
