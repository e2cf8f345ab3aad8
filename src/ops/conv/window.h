// Windows that slide over the spatial dimensions of [batch, channels, spatial…]: what Conv and the pools share. One to three spatial dimensions.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "graph/builder.h"
#include "graph/op_def.h"

namespace tandem::window {

inline constexpr int kMaxSpatial = 3;

// One spatial dimension. Tap t of window o reads row o·stride + t·dilation − before; rows outside 0 … in-1 are padding.
struct Axis {
  std::int64_t in = 1, out = 1, kernel = 1, stride = 1, dilation = 1, before = 0, after = 0;
  // The taps of window `o` that are inside: first … last-1.
  struct Taps {
    std::int64_t first, last;
  };
  Taps taps(std::int64_t o) const;
  std::int64_t row(std::int64_t o, std::int64_t tap) const { return o * stride + tap * dilation - before; }
};
// Always three of them: those that are missing come first and have one row.
using Axes = std::array<Axis, kMaxSpatial>;

// strides, dilations and pads; a pool also has `kernel` and `ceil`.
std::vector<Field> fields();
// Spatial extents of the result of windows of these extents over x. `up`: the last window may hang over the end, as long as it begins inside
// or in the padding before. Throws Error(invalid_model).
std::vector<Dim> result_extents(const OpCall& call, const std::vector<std::int64_t>& kernel, bool up);
// Of a bound call.
Axes axes_of(const OpCall& call, const std::vector<std::int64_t>& kernel);

// As a number of 32 bits; throws Error(unsupported) where it is none. For kernels that count so.
int small(std::int64_t number);
// The same axis, once it is checked that all of its rows, those of the padding too, are counted so.
const Axis& small(const Axis& axis);

// The attributes above of an ONNX node, its auto_pad among them.
NamedAttributes import(const ForeignNode& node, const Type& x, const std::vector<std::int64_t>& kernel);

}  // namespace tandem::window
