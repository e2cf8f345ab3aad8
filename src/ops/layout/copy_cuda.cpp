#include "ops/layout/copy_cuda.h"

#include <algorithm>

#include "core/check.h"
#include "device/cuda/runtime.h"
#include "ops/shape_rules.h"

namespace tandem::cuda {
namespace {

constexpr std::int64_t kLeastTiled = 16;  // shorter sides leave too much of a tile empty

struct View {
  int bytes;
  std::vector<CopyAxis> axes;  // innermost first
  std::int64_t from_offset, to_offset;
};

std::int64_t count(const View& v) {
  std::int64_t all = 1;
  for (const CopyAxis& a : v.axes) all *= a.extent;
  return all;
}

// Without extents of 1; neighbours that are one run on both sides become one.
void merge(View& v) {
  std::vector<CopyAxis> merged;
  for (const CopyAxis& a : v.axes) {
    if (a.extent == 1) continue;
    if (!merged.empty() && a.from == merged.back().from * merged.back().extent && a.to == merged.back().to * merged.back().extent)
      merged.back().extent *= a.extent;
    else merged.push_back(a);
  }
  v.axes = std::move(merged);
}

// Pairs of elements that lie together on both sides become one element, up to 16 bytes.
void widen(View& v) {
  const auto even = [](std::int64_t n) { return n % 2 == 0; };
  while (v.bytes < 16 && !v.axes.empty() && v.axes[0].from == 1 && v.axes[0].to == 1 && even(v.axes[0].extent) && even(v.from_offset) &&
         even(v.to_offset) &&
         std::all_of(v.axes.begin() + 1, v.axes.end(), [&](const CopyAxis& a) { return even(a.from) && even(a.to); })) {
    v.bytes *= 2;
    v.axes[0].extent /= 2;
    v.from_offset /= 2;
    v.to_offset /= 2;
    for (auto a = v.axes.begin() + 1; a != v.axes.end(); ++a) a->from /= 2, a->to /= 2;
    merge(v);
  }
}

void set_axes(CopyPart& part, const std::vector<CopyAxis>& axes) {
  std::int64_t items = 1;
  for (const CopyAxis& a : axes) {
    tandem::check(part.rank < kCopyRank, "a copy has few dimensions");
    part.extents[part.rank] = Divisor(a.extent);
    part.from[part.rank] = a.from;
    part.to[part.rank] = a.to;
    ++part.rank;
    items *= a.extent;
  }
  part.items = static_cast<std::uint32_t>(items);
}

// The dimension that is innermost in the source, if a transposition in tiles pays.
std::size_t tiled_axis(const View& v) {
  if (v.bytes > 8 || v.axes[0].extent < kLeastTiled || v.axes[0].from == 0 || v.axes[0].from == 1) return 0;
  for (std::size_t d = 1; d < v.axes.size(); ++d)
    if (v.axes[d].from == 1 && v.axes[d].extent >= kLeastTiled) return d;
  return 0;
}

void plan_tiles(CopyPart& part, const View& v, std::size_t row_axis, bool wide) {
  part.kind = CopyPart::Kind::tiled;
  const CopyAxis column = v.axes[0], row = v.axes[row_axis];
  part.rows = row.extent;
  part.columns = column.extent;
  part.row_to = row.to;
  part.column_from = column.from;
  const std::int64_t side = tile_side(part.bytes), vector = tile_vector(part.bytes);
  std::vector<CopyAxis> axes = {{(row.extent + side - 1) / side, side, row.to * side},
                                {(column.extent + side - 1) / side, column.from * side, side}};
  for (std::size_t d = 1; d < v.axes.size(); ++d)
    if (d != row_axis) axes.push_back(v.axes[d]);
  set_axes(part, axes);
  const auto divides = [&](std::int64_t CopyAxis::*stride) {
    return std::all_of(axes.begin(), axes.end(), [&](const CopyAxis& a) { return a.*stride % vector == 0; });
  };
  if (!wide) return;
  part.vector_loads = row.extent % vector == 0 && column.from % vector == 0 && v.from_offset % vector == 0 && divides(&CopyAxis::from);
  part.vector_stores = column.extent % vector == 0 && row.to % vector == 0 && v.to_offset % vector == 0 && divides(&CopyAxis::to);
}

// Whether 16 bytes of the result can be written at once though those of the source are no run, or begin anywhere.
bool can_gather(const View& v) {
  const std::int64_t side_by_side = 16 / v.bytes;
  const auto divides = [&](const CopyAxis& a) { return a.to % side_by_side == 0; };
  return v.bytes < 16 && v.axes[0].to == 1 && v.axes[0].extent % side_by_side == 0 && v.to_offset % side_by_side == 0 &&
         std::all_of(v.axes.begin() + 1, v.axes.end(), divides);
}

void plan_gathered(CopyPart& part, const View& v) {
  const std::int64_t side_by_side = 16 / v.bytes;
  part.kind = CopyPart::Kind::gathered;
  part.step = v.axes[0].from;
  std::vector<CopyAxis> axes = v.axes;
  axes[0] = {axes[0].extent / side_by_side, part.step * side_by_side, side_by_side};
  for (CopyAxis& a : axes) a.to /= side_by_side;
  part.to_offset /= side_by_side;
  set_axes(part, axes);
}

// `wide`: addresses are multiples of 16.
void plan(std::vector<CopyPart>& parts, View v, bool wide) {
  if (const std::int64_t all = count(v); all > kMostItems) {  // in halves along the outermost dimension
    View rest = v;
    CopyAxis &first = v.axes.back(), &second = rest.axes.back();
    first.extent /= 2;
    second.extent -= first.extent;
    rest.from_offset += first.extent * first.from;
    rest.to_offset += first.extent * first.to;
    merge(v);
    merge(rest);
    plan(parts, std::move(v), wide);
    return plan(parts, std::move(rest), wide);
  }
  CopyPart part;
  part.bytes = v.bytes;
  part.from_offset = v.from_offset;
  part.to_offset = v.to_offset;
  const std::size_t row_axis = v.axes.empty() || v.axes[0].to != 1 ? 0 : tiled_axis(v);
  if (row_axis > 0) plan_tiles(part, v, row_axis, wide);
  else if (wide && !v.axes.empty() && can_gather(v)) plan_gathered(part, v);
  else set_axes(part, v.axes);
  parts.push_back(part);
}

std::vector<CopyAxis> to_dense(const Shape& shape, const Shape& strides) {
  const Shape dense = row_major_strides(shape);
  std::vector<CopyAxis> axes;
  for (std::size_t d = 0; d < shape.size(); ++d) axes.push_back({shape[d], strides[d], dense[d]});
  return axes;
}

}  // namespace

StridedCopy::StridedCopy(int element_bytes, std::vector<CopyAxis> axes, std::int64_t from_offset, std::int64_t to_offset) {
  View v{element_bytes, {axes.rbegin(), axes.rend()}, from_offset, to_offset};
  if (count(v) == 0) return;
  merge(v);
  plan(parts_.narrow, v, false);
  widen(v);
  plan(parts_.wide, std::move(v), true);
}

StridedCopy::StridedCopy(int element_bytes, const Shape& shape, const Shape& strides, std::int64_t offset)
    : StridedCopy(element_bytes, to_dense(shape, strides), offset) {}

void StridedCopy::launch(const void* from, void* to, const Start& start) const {
  for (const CopyPart& part : parts_.at({from, to})) {
    launch_copy(part, from, to, start);
    check_launch("copy");
  }
}

}  // namespace tandem::cuda
