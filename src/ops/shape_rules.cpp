#include "ops/shape_rules.h"

#include <algorithm>

#include "core/check.h"

namespace tandem {

int normalize_axis(std::int64_t axis, int rank) {
  if (axis < -rank || axis >= rank) fail(ErrorCode::invalid_model, "axis {} is outside rank {}", axis, rank);
  return static_cast<int>(axis < 0 ? axis + rank : axis);
}

std::vector<int> normalize_axes(std::span<const std::int64_t> axes, int rank) {
  std::vector<int> out;
  for (const std::int64_t axis : axes) out.push_back(normalize_axis(axis, rank));
  std::sort(out.begin(), out.end());
  if (std::adjacent_find(out.begin(), out.end()) != out.end()) fail(ErrorCode::invalid_model, "axes {} name one axis twice", axes);
  return out;
}

bool may_be_equal(const Dim& a, const Dim& b) {
  const Range difference = (a - b).bounds({});
  return difference.min <= 0 && difference.max >= 0;
}

Dim merge_equal(const Dim& a, const Dim& b, std::string_view what) {
  if (a == b) return a;
  if (!may_be_equal(a, b)) fail(ErrorCode::invalid_model, "{} differ: {} and {}", what, a.to_string(), b.to_string());
  if (a.is_constant() != b.is_constant()) return a.is_constant() ? a : b;
  if (a.is_symbol() != b.is_symbol()) return a.is_symbol() ? a : b;
  const std::size_t x = a.to_string().size(), y = b.to_string().size();
  return x != y ? (x < y ? a : b) : std::min(a, b);
}

Broadcast broadcast_dims(const std::vector<Dim>& a, const std::vector<Dim>& b) {
  Broadcast out;
  out.dims.resize(std::max(a.size(), b.size()));
  for (std::size_t i = 0; i < out.dims.size(); ++i) {  // from the right
    const Dim x = i < a.size() ? a[a.size() - 1 - i] : Dim(1), y = i < b.size() ? b[b.size() - 1 - i] : Dim(1);
    Dim& result = out.dims[out.dims.size() - 1 - i];
    if (x == y || y == Dim(1)) {
      result = x;
    } else if (x == Dim(1)) {
      result = y;
    } else {
      if (!may_be_equal(x, y)) fail(ErrorCode::invalid_model, "shapes {} and {} do not broadcast", to_string(a), to_string(b));
      result = merge_equal(x, y, "extents");
      out.equal.emplace_back(x, y);
    }
  }
  return out;
}

const Type& require_rank(const OpCall& call, std::size_t operand, int min_rank, int max_rank) {
  const Type& type = call.operand(operand);
  if (type.rank() >= min_rank && type.rank() <= max_rank) return type;
  const std::string expected = min_rank == max_rank ? fmt::format("{}", min_rank) : fmt::format("{} to {}", min_rank, max_rank);
  fail(ErrorCode::invalid_model, "operand {} is {}, expected rank {}", operand, type.to_string(), expected);
}

DType same_dtype(const OpCall& call, std::size_t first) {
  std::optional<DType> dtype;
  for (std::size_t i = first; i < call.operands.size(); ++i) {
    if (!call.operands[i]) continue;
    if (!dtype) dtype = call.operands[i]->dtype;
    if (*dtype != call.operands[i]->dtype)
      fail(ErrorCode::invalid_model, "operand {} is {}, expected {} as the others", i, to_string(call.operands[i]->dtype),
           to_string(*dtype));
  }
  check(dtype.has_value(), "same_dtype of no operands");
  return *dtype;
}

void require_dtype(const OpCall& call, std::size_t operand, bool (*allowed)(DType), std::string_view expected) {
  const DType dtype = call.operand(operand).dtype;
  if (!allowed(dtype)) fail(ErrorCode::invalid_model, "operand {} is {}, expected {}", operand, to_string(dtype), expected);
}

bool is_number(DType type) { return is_float(type) || is_integer(type); }
bool is_boolean(DType type) { return type == DType::boolean; }
bool is_index(DType type) { return type == DType::i64 || type == DType::i32; }

std::optional<Shape> known_shape(const std::vector<Dim>& dims) {
  Shape shape;
  for (const Dim& d : dims) {
    if (!d.is_constant()) return std::nullopt;
    shape.push_back(d.constant());
  }
  return shape;
}

Shape shape_of(const Type& type) {
  Shape shape;
  for (const Dim& d : type.dims) shape.push_back(d.constant());
  return shape;
}

std::vector<Dim> dims_of_shape(const Shape& shape) { return {shape.begin(), shape.end()}; }

Shape row_major_strides(const Shape& shape) {
  Shape strides(shape.size(), 1);
  for (std::size_t d = shape.size(); d-- > 1;) strides[d - 1] = strides[d] * shape[d];
  return strides;
}

Shape strides_over(const Shape& from, const Shape& to) {
  check(from.size() <= to.size(), "broadcast to a smaller rank");
  const Shape own = row_major_strides(from);
  const std::size_t missing = to.size() - from.size();
  Shape strides(to.size(), 0);
  for (std::size_t d = 0; d < from.size(); ++d) {
    if (from[d] == to[d + missing] && from[d] != 1) strides[d + missing] = own[d];
    else if (from[d] != 1) fail(ErrorCode::invalid_argument, "shape {} does not broadcast to {}", to_string(from), to_string(to));
  }
  return strides;
}

AxisView::AxisView(const Shape& shape, int axis) : extent(shape.at(static_cast<std::size_t>(axis))) {
  for (int d = 0; d < axis; ++d) outer *= shape[static_cast<std::size_t>(d)];
  for (std::size_t d = static_cast<std::size_t>(axis) + 1; d < shape.size(); ++d) inner *= shape[d];
}

}  // namespace tandem
