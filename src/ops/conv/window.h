// Windows that slide over the spatial dimensions of [batch, channels, spatial…]: what Conv and the pools share. One to three spatial
// dimensions. With layout = "channels_last" images are [batch, spatial…, channels]; functions here take calls whose channels are first.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <initializer_list>
#include <vector>

#include "core/tensor.h"
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

// Of the channels that kernels of 16-bit floats read and write at once where these are last.
inline constexpr std::int64_t kChannelMultiple = 8;

Field layout_field();
bool is_channels_last(const Attributes& attributes);
// What is said per dimension, in the order of the other layout.
template <typename T>
std::vector<T> channels_first(std::vector<T> last) {
  if (last.size() > 2) std::rotate(last.begin() + 1, last.end() - 1, last.end());
  return last;
}
template <typename T>
std::vector<T> channels_last(std::vector<T> first) {
  if (first.size() > 2) std::rotate(first.begin() + 1, first.begin() + 2, first.end());
  return first;
}
// The call as it would be with the channels of its results and of these operands first; the same call where they are.
OpCall channels_first(const OpCall& call, std::initializer_list<std::size_t> operands);
Tensor channels_first(const Tensor& last);
Tensor channels_last(const Tensor& first);

// strides, dilations and pads; a pool also has `kernel` and `ceil`.
std::vector<Field> fields();
// Spatial extents of the result of windows of these extents over x. `up`: the last window may hang over the end, as long as it begins
// inside or in the padding before. Throws Error(invalid_model).
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
