// How scales and zero points lie over the tensor they belong to: one for all of it, one per index of an axis, or one per block along it.
#pragma once

#include <cstdint>
#include <optional>

#include "graph/op_def.h"
#include "ops/shape_rules.h"

namespace tandem {

// Of a tensor seen as [outer, extent, inner]. Element (o, e, i) has the scale o·outer_step + (e / block)·axis_step + i·inner_step.
struct ScaleLayout {
  std::int64_t outer = 1, extent = 1, inner = 1;
  std::int64_t block = 1;
  std::int64_t outer_step = 0, axis_step = 0, inner_step = 0;

  std::int64_t at(std::int64_t o, std::int64_t e, std::int64_t i) const { return o * outer_step + e / block * axis_step + i * inner_step; }
  // Of the element with this row-major index.
  std::int64_t at(std::int64_t index) const { return at(index / (extent * inner), index / inner % extent, index % inner); }
};

enum class Granularity : std::uint8_t { tensor, axis, block };

// `scale` for a tensor of type `x`; Error(invalid_model) saying which extents were expected. `zero` may be null and must lie like the
// scale.
Granularity check_scales(const Type& x, const Type& scale, const Type* zero, std::int64_t axis, std::int64_t block_size);
// No dimension, or only ones of extent 1.
bool is_one_number(const Type& type);
// Of bound types that check_scales() let pass.
ScaleLayout scale_layout(const Type& x, const Type& scale, std::int64_t axis, std::int64_t block_size);

// The dtypes that hold quantised numbers.
bool is_quantized(DType type);
// Least and largest number of one of them: of integers, and of 8-bit floats that saturate.
struct QuantizedRange {
  double least, most;
};
QuantizedRange quantized_range(DType type);

// Operands of QuantizeLinear and DequantizeLinear.
inline constexpr std::size_t kQuantizeX = 0, kQuantizeScale = 1, kQuantizeZero = 2;

}  // namespace tandem
