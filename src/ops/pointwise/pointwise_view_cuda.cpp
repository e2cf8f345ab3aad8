#include "ops/pointwise/pointwise_view_cuda.h"

#include <algorithm>
#include <limits>

#include "core/check.h"
#include "core/numeric.h"
#include "ops/shape_rules.h"

namespace tandem::pointwise {
namespace {

// Extents of the result and strides of the operands, by dimension.
struct Walk {
  Shape extents;
  std::vector<Shape> strides;  // [operand][dimension]
};

// Neighbouring dimensions that all operands walk as one are merged.
Walk merged(const Shape& shape, const std::vector<Shape>& strides) {
  Walk w{{}, std::vector<Shape>(strides.size())};
  for (std::size_t d = 0; d < shape.size(); ++d) {
    if (shape[d] == 1) continue;
    bool merges = !w.extents.empty();
    for (std::size_t n = 0; merges && n < strides.size(); ++n) merges = w.strides[n].back() == strides[n][d] * shape[d];
    if (merges) w.extents.back() *= shape[d];
    else w.extents.push_back(shape[d]);
    for (std::size_t n = 0; n < strides.size(); ++n) {
      if (merges) w.strides[n].back() = strides[n][d];
      else w.strides[n].push_back(strides[n][d]);
    }
  }
  return w;
}

Way way_of(const Walk& w, const Shape& strides) {
  if (std::ranges::all_of(strides, [](std::int64_t s) { return s == 0; })) return Way::scalar;
  if (strides == row_major_strides(w.extents)) return Way::dense;
  return strides.back() == 1 ? Way::rows : strides.back() == 0 ? Way::columns : Way::strided;
}

bool is_moved(Way way) { return way == Way::dense || way == Way::rows; }

// Elements a thread makes: 16 bytes of the narrowest type that is moved, no more than 32 of the widest.
int vector_of(const PointwiseForm& form, const Walk& w) {
  std::size_t least = bytes(form.result, 1), most = least;
  bool placed = false;
  for (std::size_t n = 0; n < form.ways.size(); ++n) {
    if (form.ways[n] == Way::strided) return 1;
    placed = placed || form.ways[n] == Way::rows || form.ways[n] == Way::columns;
    if (!is_moved(form.ways[n])) continue;
    least = std::min(least, bytes(form.dtypes[n], 1));
    most = std::max(most, bytes(form.dtypes[n], 1));
  }
  auto vector = static_cast<std::int64_t>(std::min<std::size_t>({8, 16 / least, 32 / most}));
  const auto fits = [&] {
    if (!placed) return true;
    if (w.extents.back() % vector != 0) return false;
    for (std::size_t n = 0; n < form.ways.size(); ++n)
      if (form.ways[n] == Way::rows &&
          std::any_of(w.strides[n].begin(), w.strides[n].end() - 1, [&](std::int64_t s) { return s % vector != 0; }))
        return false;
    return true;
  };
  while (!fits()) vector /= 2;
  return static_cast<int>(vector);
}

void set_divisor(std::int64_t extent, std::uint32_t& multiplier, std::uint32_t& shift) {
  shift = 0;
  while ((std::int64_t{1} << shift) < extent) ++shift;
  multiplier = static_cast<std::uint32_t>(((std::uint64_t{1} << 32) * ((std::uint64_t{1} << shift) - static_cast<std::uint64_t>(extent))) /
                                              static_cast<std::uint64_t>(extent) +
                                          1);
}

}  // namespace

PointwiseView pointwise_view(Program program, std::vector<DType> dtypes, const std::vector<Shape>& strides, DType result,
                             const Shape& shape) {
  PointwiseView view{.form = {.program = std::move(program), .dtypes = std::move(dtypes), .result = result}};
  const std::int64_t count = element_count(shape);
  if (count == 0) return view;
  const Walk w = merged(shape, strides);
  PointwiseForm& form = view.form;
  for (const Shape& s : w.strides) form.ways.push_back(way_of(w, s));
  form.vector = vector_of(form, w);
  form.dims = w.extents.empty() ? 0 : static_cast<int>(w.extents.size()) - 1;
  form.wide = count > std::numeric_limits<std::int32_t>::max();
  check(form.dims <= kMostDims, "a walk of few dimensions");

  PointwiseArgs& args = view.args;
  args.count = static_cast<std::uint64_t>(count);
  args.vectors = static_cast<std::uint64_t>(ceil_divide(count, form.vector));
  const std::int64_t inner = w.extents.empty() ? 1 : std::max<std::int64_t>(w.extents.back() / form.vector, 1);
  args.inner = static_cast<std::uint64_t>(inner);
  if (!form.wide) set_divisor(inner, args.inner_multiplier, args.inner_shift);
  for (std::size_t d = 0; d < static_cast<std::size_t>(form.dims); ++d) {
    args.extents[d] = static_cast<std::uint64_t>(w.extents[d]);
    if (!form.wide) set_divisor(w.extents[d], args.multipliers[d], args.shifts[d]);
  }
  for (std::size_t n = 0; n < w.strides.size(); ++n)
    for (std::size_t d = 0; d < w.extents.size(); ++d) args.strides[n][d + 1 == w.extents.size() ? kMostDims : d] = w.strides[n][d];

  const auto blocks = ceil_divide(static_cast<std::int64_t>(args.vectors), kPointwiseThreads);
  if (blocks > std::numeric_limits<std::int32_t>::max())
    fail(ErrorCode::unsupported, "{} elements are more than one kernel can be given", count);
  view.blocks = static_cast<unsigned>(blocks);
  const auto pack = [&](DType type) { return std::min<std::size_t>(16, static_cast<std::size_t>(form.vector) * bytes(type, 1)); };
  for (std::size_t n = 0; n < form.ways.size(); ++n) view.alignments.push_back(is_moved(form.ways[n]) ? pack(form.dtypes[n]) : 1);
  view.alignments.push_back(pack(result));
  return view;
}

}  // namespace tandem::pointwise
