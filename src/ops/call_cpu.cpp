#include "ops/call_cpu.h"

#include "core/check.h"

namespace tandem {

Shape bound_shape(const Type& type) {
  Shape shape;
  shape.reserve(type.dims.size());
  for (const Dim& dim : type.dims) shape.push_back(dim.constant());
  return shape;
}

std::int64_t bound_count(const Type& type) { return element_count(bound_shape(type)); }

int front_axis(std::int64_t axis, int rank) {
  const auto front = static_cast<int>(axis < 0 ? axis + rank : axis);
  check(front >= 0 && front < rank, "axis lies within the rank");
  return front;
}

AxisLoops axis_loops(const Shape& shape, int axis) {
  AxisLoops loops;
  for (int i = 0; i < static_cast<int>(shape.size()); ++i) {
    std::int64_t& into = i < axis ? loops.outer : i == axis ? loops.length : loops.inner;
    into *= shape[static_cast<std::size_t>(i)];
  }
  return loops;
}

std::vector<std::int64_t> dense_strides(const Shape& shape) {
  std::vector<std::int64_t> strides(shape.size(), 1);
  for (std::size_t i = shape.size(); i-- > 1;) strides[i - 1] = strides[i] * shape[i];
  return strides;
}

std::vector<std::int64_t> broadcast_strides(const Shape& shape, const Shape& over) {
  check(shape.size() <= over.size(), "the broadcast shape has at least the operand's rank");
  const std::vector<std::int64_t> dense = dense_strides(shape);
  std::vector<std::int64_t> strides(over.size(), 0);
  const std::size_t lead = over.size() - shape.size();
  for (std::size_t i = 0; i < shape.size(); ++i) {
    check(shape[i] == 1 || shape[i] == over[lead + i], "extents broadcast");
    if (shape[i] != 1) strides[lead + i] = dense[i];
  }
  return strides;
}

}  // namespace tandem
