#include "graph/weight.h"

#include <cstring>

#include "core/check.h"
#include "core/numeric.h"

namespace tandem {
namespace {

std::size_t at(int axis) { return static_cast<std::size_t>(axis); }

RecipePtr make(Recipe recipe) { return std::make_shared<const Recipe>(std::move(recipe)); }

// Elements before, along and after an axis.
struct Blocks {
  std::int64_t outer = 1, inner = 1;
  Blocks(const Shape& shape, int axis) {
    for (std::size_t i = 0; i < shape.size(); ++i)
      (static_cast<int>(i) < axis ? outer : inner) *= static_cast<int>(i) == axis ? 1 : shape[i];
  }
};

// `count` elements from one place to another. Half bytes go one by one where they do not lie alike.
void copy_elements(const Tensor& from, std::int64_t from_at, Tensor& to, std::int64_t to_at, std::int64_t count) {
  const std::int64_t size = bits(from.dtype());
  if (from_at * size % 8 == 0 && to_at * size % 8 == 0 && count * size % 8 == 0) {
    std::memcpy(to.mutable_data() + bytes(from.dtype(), to_at), from.data() + bytes(from.dtype(), from_at), bytes(from.dtype(), count));
    return;
  }
  for (std::int64_t i = 0; i < count; ++i) store_int(to.dtype(), to.mutable_data(), to_at + i, from.int_at(from_at + i));
}

Tensor slice_rows(const Tensor& from, int axis, std::int64_t begin, std::int64_t length) {
  Shape shape = from.shape();
  const std::int64_t extent = shape[at(axis)];
  shape[at(axis)] = length;
  Tensor out(from.dtype(), shape);
  const Blocks blocks(from.shape(), axis);
  const std::int64_t count = std::max<std::int64_t>(0, std::min(length, extent - begin));
  for (std::int64_t o = 0; o < blocks.outer && count > 0; ++o)
    copy_elements(from, (o * extent + begin) * blocks.inner, out, o * length * blocks.inner, count * blocks.inner);
  return out;
}

Tensor concat_rows(const std::vector<Tensor>& parts, int axis, const Shape& shape) {
  Tensor out(parts.at(0).dtype(), shape);
  const Blocks blocks(shape, axis);
  std::int64_t offset = 0;
  for (const Tensor& part : parts) {
    const std::int64_t rows = part.shape()[at(axis)];
    for (std::int64_t o = 0; o < blocks.outer && rows > 0; ++o)
      copy_elements(part, o * rows * blocks.inner, out, (o * shape[at(axis)] + offset) * blocks.inner, rows * blocks.inner);
    offset += rows;
  }
  return out;
}

Tensor transposed(const Tensor& from, const std::vector<std::int64_t>& permutation, const Shape& shape) {
  Tensor out(from.dtype(), shape);
  const std::size_t rank = shape.size();
  const bool halves = bits(from.dtype()) < 8;
  const std::size_t size = halves ? 0 : bytes(from.dtype(), 1);
  std::vector<std::int64_t> stride(rank, 1), step(rank), index(rank, 0);
  for (std::size_t i = rank; i-- > 1;) stride[i - 1] = stride[i] * from.shape()[i];
  for (std::size_t i = 0; i < rank; ++i) step[i] = stride[static_cast<std::size_t>(permutation[i])];
  std::int64_t source = 0;
  for (std::int64_t target = 0; target < out.count(); ++target) {
    if (halves) store_int(out.dtype(), out.mutable_data(), target, from.int_at(source));
    else
      std::memcpy(out.mutable_data() + static_cast<std::size_t>(target) * size, from.data() + static_cast<std::size_t>(source) * size,
                  size);
    for (std::size_t i = rank; i-- > 0;) {
      source += step[i];
      if (++index[i] < shape[i]) break;
      source -= step[i] * shape[i];
      index[i] = 0;
    }
  }
  return out;
}

}  // namespace

RecipePtr Recipe::from_source(std::string name, DType dtype, Shape shape) {
  return make({.kind = Kind::source, .dtype = dtype, .shape = std::move(shape), .source = std::move(name)});
}

RecipePtr Recipe::slice(RecipePtr of, int axis, Dim begin, std::int64_t length) {
  check(axis >= 0 && at(axis) < of->shape.size() && length >= 0, "slice recipe inside the rank");
  if (begin == Dim(0) && length == of->shape[at(axis)]) return of;
  Shape shape = of->shape;
  shape[at(axis)] = length;
  const DType dtype = of->dtype;
  return make({.kind = Kind::slice, .dtype = dtype, .shape = shape, .inputs = {std::move(of)}, .axis = axis, .begin = std::move(begin)});
}

RecipePtr Recipe::concat(std::vector<RecipePtr> parts, int axis) {
  check(!parts.empty(), "concat recipe of something");
  Shape shape = parts[0]->shape;
  shape.at(at(axis)) = 0;
  for (const RecipePtr& p : parts) shape[at(axis)] += p->shape.at(at(axis));
  const DType dtype = parts[0]->dtype;
  return make({.kind = Kind::concat, .dtype = dtype, .shape = shape, .inputs = std::move(parts), .axis = axis});
}

RecipePtr Recipe::transpose(RecipePtr of, std::vector<std::int64_t> permutation) {
  Shape shape;
  for (std::int64_t p : permutation) shape.push_back(of->shape.at(static_cast<std::size_t>(p)));
  const DType dtype = of->dtype;
  return make({.kind = Kind::transpose, .dtype = dtype, .shape = shape, .inputs = {std::move(of)}, .permutation = std::move(permutation)});
}

RecipePtr Recipe::reshape(RecipePtr of, Shape shape) {
  check(element_count(shape) == element_count(of->shape), "reshape recipe keeps the count");
  if (shape == of->shape) return of;
  const DType dtype = of->dtype;
  return make({.kind = Kind::reshape, .dtype = dtype, .shape = std::move(shape), .inputs = {std::move(of)}});
}

RecipePtr Recipe::cast(RecipePtr of, DType dtype) {
  if (of->dtype == dtype) return of;
  Shape shape = of->shape;
  return make({.kind = Kind::cast, .dtype = dtype, .shape = std::move(shape), .inputs = {std::move(of)}});
}

RecipePtr Recipe::pad(RecipePtr of, int axis, std::int64_t extent) {
  Shape shape = of->shape;
  check(shape.at(at(axis)) <= extent, "pad recipe grows");
  if (shape[at(axis)] == extent) return of;
  shape[at(axis)] = extent;
  const DType dtype = of->dtype;
  return make({.kind = Kind::pad, .dtype = dtype, .shape = shape, .inputs = {std::move(of)}, .axis = axis});
}

std::string Recipe::to_string() const {
  switch (kind) {
    case Kind::source: return fmt::format("source(\"{}\", {}{})", source, tandem::to_string(dtype), tandem::to_string(shape));
    case Kind::slice: return fmt::format("slice({}, {}, {}, {})", inputs[0]->to_string(), axis, begin.to_string(), shape[at(axis)]);
    case Kind::transpose: return fmt::format("transpose({}, {})", inputs[0]->to_string(), tandem::to_string(permutation));
    case Kind::reshape: return fmt::format("reshape({}, {})", inputs[0]->to_string(), tandem::to_string(shape));
    case Kind::cast: return fmt::format("cast({}, {})", inputs[0]->to_string(), tandem::to_string(dtype));
    case Kind::pad: return fmt::format("pad({}, {}, {})", inputs[0]->to_string(), axis, shape[at(axis)]);
    case Kind::concat: break;
  }
  std::string text = fmt::format("concat({}", axis);
  for (const RecipePtr& p : inputs) text += ", " + p->to_string();
  return text + ")";
}

void Recipe::collect_sources(std::vector<std::string>& into) const {
  if (kind == Kind::source) into.push_back(source);
  for (const RecipePtr& p : inputs) p->collect_sources(into);
}

void Recipe::collect_symbols(std::set<std::string>& into) const {
  begin.collect_symbols(into);
  for (const RecipePtr& p : inputs) p->collect_symbols(into);
}

Tensor run_recipe(const Recipe& recipe, const std::function<Tensor(const std::string&)>& source, const SymbolValues& coordinates) {
  using Kind = Recipe::Kind;
  if (recipe.kind == Kind::source) {
    Tensor t = source(recipe.source);
    if (t.dtype() != recipe.dtype || t.shape() != recipe.shape)
      fail(ErrorCode::mismatch, "weight '{}' is {}{}, expected {}{}", recipe.source, to_string(t.dtype()), to_string(t.shape()),
           to_string(recipe.dtype), to_string(recipe.shape));
    return t;
  }
  std::vector<Tensor> inputs;
  for (const RecipePtr& p : recipe.inputs) inputs.push_back(run_recipe(*p, source, coordinates));
  switch (recipe.kind) {
    case Kind::slice: return slice_rows(inputs[0], recipe.axis, recipe.begin.evaluate(coordinates), recipe.shape[at(recipe.axis)]);
    case Kind::pad: return slice_rows(inputs[0], recipe.axis, 0, recipe.shape[at(recipe.axis)]);
    case Kind::concat: return concat_rows(inputs, recipe.axis, recipe.shape);
    case Kind::transpose: return transposed(inputs[0], recipe.permutation, recipe.shape);
    case Kind::reshape: return inputs[0].reshaped(recipe.shape);
    case Kind::cast: return inputs[0].converted(recipe.dtype);
    case Kind::source: break;
  }
  return {};
}

RecipePtr shard_recipe(RecipePtr whole, const Sharding& sharding, const Mesh& mesh) {
  RecipePtr out = std::move(whole);
  for (std::size_t d = 0; d < sharding.dims.size(); ++d) {
    const DimSharding& factors = sharding.dims[d];
    if (!sharding.is_split(static_cast<int>(d))) continue;
    Shape before = out->shape, open(before.begin(), before.begin() + static_cast<std::ptrdiff_t>(d));
    for (const Factor& f : factors) open.push_back(f.size.constant());
    open.insert(open.end(), before.begin() + static_cast<std::ptrdiff_t>(d) + 1, before.end());
    out = Recipe::reshape(out, open);
    std::int64_t local = 1;
    for (std::size_t j = 0; j < factors.size(); ++j) {
      const std::int64_t block = ceil_divide(factors[j].size.constant(), split_count(factors[j], mesh));
      if (!factors[j].axes.empty()) out = Recipe::slice(out, static_cast<int>(d + j), split_index(factors[j], mesh) * Dim(block), block);
      local *= block;
    }
    before[d] = local;
    out = Recipe::reshape(out, before);
  }
  return out;
}

}  // namespace tandem
