#include "ops/quantize/scales.h"

#include "core/check.h"

namespace tandem {
namespace {

void check_axis_scales(const Type& x, const Type& scale, std::int64_t axis) {
  const Dim& extent = x.dims[static_cast<std::size_t>(normalize_axis(axis, x.rank()))];
  if (!may_be_equal(scale.dims[0], extent))
    fail(ErrorCode::invalid_model, "{} scales are given for axis {} of {}, which has {}", scale.dims[0].to_string(), axis, x.to_string(),
         extent.to_string());
}

void check_block_scales(const Type& x, const Type& scale, std::int64_t axis, std::int64_t block) {
  if (block <= 0) fail(ErrorCode::invalid_model, "scales {} of {} need a block_size", scale.to_string(), x.to_string());
  const auto along = static_cast<std::size_t>(normalize_axis(axis, x.rank()));
  std::vector<Dim> expected = x.dims;
  expected[along] = ceil_div(expected[along], block);
  bool fits = scale.rank() == x.rank();
  for (std::size_t i = 0; fits && i < expected.size(); ++i) fits = may_be_equal(scale.dims[i], expected[i]);
  if (!fits)
    fail(ErrorCode::invalid_model, "scales {} do not fit {} in blocks of {} along axis {}: expected {}", scale.to_string(), x.to_string(),
         block, axis, to_string(expected));
}

}  // namespace

bool is_one_number(const Type& type) {
  for (const Dim& d : type.dims)
    if (d != Dim(1)) return false;
  return true;
}

Granularity check_scales(const Type& x, const Type& scale, const Type* zero, std::int64_t axis, std::int64_t block_size) {
  if (!is_float(scale.dtype)) fail(ErrorCode::invalid_model, "scales are {}, expected a float type", to_string(scale.dtype));
  if (zero && zero->dims != scale.dims)
    fail(ErrorCode::invalid_model, "zero points {} do not lie like the scales {}", zero->to_string(), scale.to_string());
  if (block_size < 0) fail(ErrorCode::invalid_model, "block_size {} is negative", block_size);
  if (is_one_number(scale)) return Granularity::tensor;
  if (scale.rank() == 1 && block_size == 0) {
    check_axis_scales(x, scale, axis);
    return Granularity::axis;
  }
  check_block_scales(x, scale, axis, block_size);
  return Granularity::block;
}

ScaleLayout scale_layout(const Type& x, const Type& scale, std::int64_t axis, std::int64_t block_size) {
  ScaleLayout layout;
  const Granularity granularity = check_scales(x, scale, nullptr, axis, block_size);
  if (granularity == Granularity::tensor) {
    layout.inner = element_count(shape_of(x));
    return layout;
  }
  const int along = normalize_axis(axis, x.rank());
  const AxisView view(shape_of(x), along);
  layout.outer = view.outer;
  layout.extent = view.extent;
  layout.inner = view.inner;
  if (granularity == Granularity::axis) {
    layout.axis_step = 1;
    return layout;
  }
  layout.block = block_size;
  layout.inner_step = 1;
  layout.axis_step = view.inner;
  layout.outer_step = view.inner * shape_of(scale)[static_cast<std::size_t>(along)];
  return layout;
}

bool is_quantized(DType type) { return (is_integer(type) && bits(type) <= 16) || type == DType::f8e4m3 || type == DType::f8e5m2; }

QuantizedRange quantized_range(DType type) {
  if (type == DType::f8e4m3) return {-448, 448};
  if (type == DType::f8e5m2) return {-57344, 57344};
  const bool is_signed = type == DType::i4 || type == DType::i8 || type == DType::i16;
  const auto count = static_cast<double>(1 << bits(type));
  return is_signed ? QuantizedRange{-count / 2, count / 2 - 1} : QuantizedRange{0, count - 1};
}

}  // namespace tandem
