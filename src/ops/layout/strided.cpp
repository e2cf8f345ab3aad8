#include "ops/layout/strided.h"

#include <cstring>

#include "ops/shape_rules.h"

namespace tandem {

namespace {
constexpr std::int64_t kContentLimit = 1024;
}

void copy_element(DType dtype, const std::byte* from, std::int64_t i, std::byte* to, std::int64_t j) {
  if (bits(dtype) < 8) return store_int(dtype, to, j, load_int(dtype, from, i));
  const std::int64_t size = bits(dtype) / 8;
  std::memcpy(to + j * size, from + i * size, static_cast<std::size_t>(size));
}

Tensor take_strided(const Tensor& source, const Shape& shape, const Shape& strides, std::int64_t offset) {
  Tensor out(source.dtype(), shape);
  std::byte* to = out.mutable_data();
  for_each_offset<1>(shape, {strides},
                     [&](std::int64_t i, const auto& offsets) { copy_element(source.dtype(), source.data(), offset + offsets[0], to, i); });
  return out;
}

std::optional<Shape> content_shape(const std::vector<Dim>& dims) {
  const auto shape = known_shape(dims);
  if (!shape || element_count(*shape) > kContentLimit) return std::nullopt;
  return shape;
}

std::optional<DimContent> take_strided(const DimContent& source, const std::vector<Dim>& dims, const Shape& strides, std::int64_t offset) {
  const auto shape = content_shape(dims);
  if (!shape) return std::nullopt;
  DimContent out;
  bool inside = true;
  for_each_offset<1>(*shape, {strides}, [&](std::int64_t, const auto& offsets) {
    const std::int64_t at = offset + offsets[0];
    inside = inside && at >= 0 && at < static_cast<std::int64_t>(source.size());
    if (inside) out.push_back(source[static_cast<std::size_t>(at)]);
  });
  return inside ? std::optional(out) : std::nullopt;
}

bool surely_at_most(const GraphBuilder& builder, const Dim& a, const Dim& b) {
  return (a - b).bounds(builder.graph().symbol_ranges()).max <= 0;
}

Dim min_in(const GraphBuilder& builder, const Dim& a, const Dim& b) {
  if (surely_at_most(builder, a, b)) return a;
  if (surely_at_most(builder, b, a)) return b;
  return min(a, b);
}

Dim max_in(const GraphBuilder& builder, const Dim& a, const Dim& b) {
  if (surely_at_most(builder, a, b)) return b;
  if (surely_at_most(builder, b, a)) return a;
  return max(a, b);
}

}  // namespace tandem
