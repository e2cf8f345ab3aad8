// What kernels read from a bound OpCall: numbers instead of Dims.
#pragma once

#include <cstdint>
#include <vector>

#include "graph/op_def.h"

namespace tandem {

// The extents; throws Error(internal) if one is not a number.
Shape bound_shape(const Type& type);
std::int64_t bound_count(const Type& type);
// `axis` counted from the front; negative counts from the back.
int front_axis(std::int64_t axis, int rank);
// Products of the extents before, at and after an axis: the loops of every op along one axis.
struct AxisLoops {
  std::int64_t outer = 1, length = 1, inner = 1;
};
AxisLoops axis_loops(const Shape& shape, int axis);
// Elements to step per dimension in a dense row-major array.
std::vector<std::int64_t> dense_strides(const Shape& shape);
// Strides of `shape` seen as the larger `over` under numpy broadcasting: 0 where it is repeated.
std::vector<std::int64_t> broadcast_strides(const Shape& shape, const Shape& over);

}  // namespace tandem
