#include <algorithm>

#include "core/check.h"
#include "core/numeric.h"
#include "core/stored_bytes.h"
#include "graph/text.h"
#include "graph/text_values.h"

namespace tandem {
namespace {

// Reads one recipe; everything that Recipe's constructors take for granted is checked here first.
class RecipeParser {
 public:
  explicit RecipeParser(Scanner& scanner) : s_(scanner) {}

  RecipePtr recipe() {
    const Scanner::Nested guard(s_);
    const std::size_t start = s_.position();
    const std::string_view kind = s_.word("a recipe (source, slice, concat, transpose, reshape, cast or pad)");
    s_.expect('(');
    RecipePtr made = body(kind, start);
    s_.expect(')');
    s_.at(start, [&] { return stored_bytes(made->dtype, element_count(made->shape)); });
    return made;
  }

 private:
  RecipePtr body(std::string_view kind, std::size_t start) {
    if (kind == "source") return source();
    if (kind == "slice") return slice();
    if (kind == "concat") return concat();
    if (kind == "transpose") return transpose();
    if (kind == "reshape") return reshape();
    if (kind == "cast") return cast();
    if (kind == "pad") return pad();
    s_.refuse_at(start, fmt::format("'{}' is no recipe; there are source slice concat transpose reshape cast pad", kind));
  }

  RecipePtr of() {
    RecipePtr inner = recipe();
    s_.expect(',');
    return inner;
  }

  int axis(std::size_t rank) {
    const std::size_t start = s_.position();
    const std::int64_t axis = s_.integer("an axis");
    if (axis < 0 || axis >= static_cast<std::int64_t>(rank)) s_.refuse_at(start, fmt::format("axis {} is outside rank {}", axis, rank));
    return static_cast<int>(axis);
  }

  std::int64_t extent(std::int64_t least) {
    const std::size_t start = s_.position();
    const std::int64_t value = s_.integer("an extent");
    if (value < least) s_.refuse_at(start, fmt::format("extent {} is below {}", value, least));
    return value;
  }

  RecipePtr source() {
    std::string name = s_.quoted("the name of a source");
    s_.expect(',');
    const DType dtype = scan_dtype(s_);
    return Recipe::from_source(std::move(name), dtype, scan_shape(s_));
  }

  RecipePtr slice() {
    RecipePtr inner = of();
    const int along = axis(inner->shape.size());
    s_.expect(',');
    Dim begin = s_.dim();
    s_.expect(',');
    const std::int64_t length = extent(0);
    return Recipe::slice(std::move(inner), along, std::move(begin), length);
  }

  RecipePtr concat() {
    const std::size_t axis_at = s_.position();
    const std::int64_t along = s_.integer("an axis");
    std::vector<RecipePtr> parts;
    std::int64_t total = 0;
    while (s_.take(',')) {
      const std::size_t start = s_.position();
      parts.push_back(recipe());
      const Recipe &first = *parts.front(), &last = *parts.back();
      if (along < 0 || along >= static_cast<std::int64_t>(first.shape.size())) s_.refuse_at(axis_at, "the axis is outside the rank");
      Shape a = first.shape, b = last.shape;
      if (a.size() == b.size()) a[static_cast<std::size_t>(along)] = b[static_cast<std::size_t>(along)];
      if (a != b || first.dtype != last.dtype) s_.refuse_at(start, "a part differs in type or shape from the first");
      total = s_.at(start, [&] { return checked_add(total, b[static_cast<std::size_t>(along)]); });
    }
    if (parts.empty()) s_.refuse("a part of the concat");
    return Recipe::concat(std::move(parts), static_cast<int>(along));
  }

  RecipePtr transpose() {
    RecipePtr inner = of();
    const std::size_t start = s_.position();
    std::vector<std::int64_t> permutation = scan_shape(s_), sorted = permutation;
    std::ranges::sort(sorted);
    bool good = sorted.size() == inner->shape.size();
    for (std::size_t i = 0; good && i < sorted.size(); ++i) good = sorted[i] == static_cast<std::int64_t>(i);
    if (!good) s_.refuse_at(start, fmt::format("{} is no permutation of {} axes", to_string(permutation), inner->shape.size()));
    return Recipe::transpose(std::move(inner), std::move(permutation));
  }

  RecipePtr reshape() {
    RecipePtr inner = of();
    const std::size_t start = s_.position();
    Shape shape = scan_shape(s_);
    if (element_count(shape) != element_count(inner->shape))
      s_.refuse_at(start, fmt::format("{} and {} differ in their element count", to_string(inner->shape), to_string(shape)));
    return Recipe::reshape(std::move(inner), std::move(shape));
  }

  RecipePtr cast() {
    RecipePtr inner = of();
    return Recipe::cast(std::move(inner), scan_dtype(s_));
  }

  RecipePtr pad() {
    RecipePtr inner = of();
    const int along = axis(inner->shape.size());
    s_.expect(',');
    const std::int64_t to = extent(inner->shape[static_cast<std::size_t>(along)]);
    return Recipe::pad(std::move(inner), along, to);
  }

  Scanner& s_;
};

}  // namespace

RecipePtr scan_recipe(Scanner& scanner) { return RecipeParser(scanner).recipe(); }

RecipePtr parse_recipe(std::string_view text) {
  Scanner scanner(text);
  RecipePtr recipe = scan_recipe(scanner);
  if (scanner.peek() != '\0') scanner.refuse("the end");
  return recipe;
}

}  // namespace tandem
