// Weights: recipes over named sources that run the same at build, load and refit.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "core/dim.h"
#include "core/tensor.h"
#include "graph/sharding.h"

namespace tandem {

struct Recipe;
using RecipePtr = std::shared_ptr<const Recipe>;

// An immutable expression; its result has static dtype and shape. Steps move or pad elements and cast, nothing else.
struct Recipe {
  enum class Kind : std::uint8_t { source, slice, concat, transpose, reshape, cast, pad };
  Kind kind = Kind::source;
  DType dtype = DType::f32;
  Shape shape;
  std::vector<RecipePtr> inputs;
  std::string source;                     // source: name in the imported model
  int axis = 0;                           // slice, concat, pad
  Dim begin;                              // slice: start along `axis`; may hold coordinate symbols like @tp
  std::vector<std::int64_t> permutation;  // transpose

  static RecipePtr from_source(std::string name, DType dtype, Shape shape);
  // Rows begin … begin+length; what lies past the end is zeros.
  static RecipePtr slice(RecipePtr of, int axis, Dim begin, std::int64_t length);
  static RecipePtr concat(std::vector<RecipePtr> parts, int axis);
  static RecipePtr transpose(RecipePtr of, std::vector<std::int64_t> permutation);
  static RecipePtr reshape(RecipePtr of, Shape shape);
  static RecipePtr cast(RecipePtr of, DType dtype);
  // Zeros after the end along `axis`, up to `extent`.
  static RecipePtr pad(RecipePtr of, int axis, std::int64_t extent);

  std::string to_string() const;
  void collect_sources(std::vector<std::string>& into) const;
  void collect_symbols(std::set<std::string>& into) const;
};

// Runs a recipe; `source` returns the full tensor of a name, `coordinates` binds @axis symbols.
Tensor run_recipe(const Recipe& recipe, const std::function<Tensor(const std::string&)>& source, const SymbolValues& coordinates);

// One block of a weight per mesh coordinate: slices every split factor, padding the last block with zeros.
RecipePtr shard_recipe(RecipePtr whole, const Sharding& sharding, const Mesh& mesh);

struct Weight {
  std::string name;  // unique in the module
  RecipePtr recipe;
  bool frozen = false;  // folding did arithmetic: its source is not a tensor of the imported model
};

}  // namespace tandem
