// MaxPool and AveragePool as evaluator and kernels see them: numbers.
#pragma once

#include <algorithm>
#include <cstdint>

#include "ops/conv/window.h"

namespace tandem::pool {

struct Problem {
  DType dtype = DType::f32;
  bool max = false, count_padding = false;
  // Memory is [images, positions, channels]. Channels first: batch times channels, and 1; last: batch, and channels.
  std::int64_t images = 0, channels = 1;
  window::Axes axes;

  std::int64_t in_count() const { return axes[0].in * axes[1].in * axes[2].in; }
  std::int64_t out_count() const { return axes[0].out * axes[1].out * axes[2].out; }
  // The window with this row-major index.
  std::array<std::int64_t, 3> position(std::int64_t i) const {
    return {i / axes[2].out / axes[1].out, i / axes[2].out % axes[1].out, i % axes[2].out};
  }

  // Calls f(row-major index in an image) for each tap of window `o` that is inside, in order.
  template <typename F>
  void each_inside(const std::array<std::int64_t, 3>& o, F f) const {
    const auto& [a, b, c] = axes;
    const auto ta = a.taps(o[0]), tb = b.taps(o[1]), tc = c.taps(o[2]);
    for (std::int64_t u = ta.first; u < ta.last; ++u)
      for (std::int64_t v = tb.first; v < tb.last; ++v)
        for (std::int64_t t = tc.first; t < tc.last; ++t) f((a.row(o[0], u) * b.in + b.row(o[1], v)) * c.in + c.row(o[2], t));
  }

  // How many taps the mean of window `o` is over; beyond the padding, where `ceil` lets it hang, it has none.
  std::int64_t divisor(const std::array<std::int64_t, 3>& o) const {
    std::int64_t count = 1;
    for (std::size_t d = 0; d < o.size(); ++d) count *= divisor(axes[d], o[d]);
    return count;
  }
  std::int64_t divisor(const window::Axis& axis, std::int64_t o) const {
    const auto inside = axis.taps(o);
    if (!count_padding) return inside.last - inside.first;
    const std::int64_t room = axis.in + axis.after - axis.row(o, 0);  // rows up to the end of the padding
    return std::min(axis.kernel, (room + axis.dilation - 1) / axis.dilation);
  }
};

// Of a bound call, in either layout.
Problem problem_of(const OpCall& call);

}  // namespace tandem::pool
