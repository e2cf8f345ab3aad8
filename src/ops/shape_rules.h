// Rules about shapes that many ops share: axes, equal extents, broadcasting, dtypes, and row-major indices for evaluators.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>
#include <utility>
#include <vector>

#include "graph/op_def.h"

namespace tandem {

// -rank … rank-1 to 0 … rank-1; Error(invalid_model) outside.
int normalize_axis(std::int64_t axis, int rank);
// The same for several; sorted. A repeated axis is Error(invalid_model).
std::vector<int> normalize_axes(std::span<const std::int64_t> axes, int rank);

// False if no values of the symbols make them equal.
bool may_be_equal(const Dim& a, const Dim& b);
// Of two extents that must agree the one that says more: a number, else a plain symbol, else the shorter expression.
// Error(invalid_model) naming `what` if they cannot be equal. Importers also call GraphBuilder::require_equal.
Dim merge_equal(const Dim& a, const Dim& b, std::string_view what);

struct Broadcast {
  std::vector<Dim> dims;
  std::vector<std::pair<Dim, Dim>> equal;  // extents assumed to be equal; to be passed to GraphBuilder::require_equal
};
// numpy's rule. An extent broadcasts only if it is the number 1: other unequal extents are assumed to be equal at run time,
// and Error(invalid_model) if they cannot be.
Broadcast broadcast_dims(const std::vector<Dim>& a, const std::vector<Dim>& b);

// Axes, broadcast extents and dtypes of calls; errors are Error(invalid_model).
const Type& require_rank(const OpCall& call, std::size_t operand, int min_rank, int max_rank);
// The dtype that all present operands from `first` on share.
DType same_dtype(const OpCall& call, std::size_t first = 0);
// Refuses a dtype for which `allowed` does not hold, saying what is `expected`: "a float type".
void require_dtype(const OpCall& call, std::size_t operand, bool (*allowed)(DType), std::string_view expected);
bool is_number(DType type);  // float or integer
bool is_boolean(DType type);
bool is_index(DType type);  // i32 or i64

// The extents as numbers, if all are.
std::optional<Shape> known_shape(const std::vector<Dim>& dims);
// The same of a bound call's type; Error(internal) if a symbol is left.
Shape shape_of(const Type& type);
std::vector<Dim> dims_of_shape(const Shape& shape);

// Elements between neighbours along each dimension.
Shape row_major_strides(const Shape& shape);
// Strides that walk `from` while iterating over `to`, aligned from the right: 0 along broadcast dimensions.
Shape strides_over(const Shape& from, const Shape& to);

// Calls f(i, offsets) for the i-th index of `shape` in row-major order; offsets[n] is the index times strides[n].
template <std::size_t N, typename F>
void for_each_offset(const Shape& shape, const std::array<Shape, N>& strides, F f) {
  const std::int64_t count = element_count(shape);
  std::array<std::int64_t, N> offsets{};
  Shape index(shape.size(), 0);
  for (std::int64_t i = 0; i < count; ++i) {
    f(i, offsets);
    for (std::size_t d = shape.size(); d-- > 0;) {
      for (std::size_t n = 0; n < N; ++n) offsets[n] += strides[n][d];
      if (++index[d] < shape[d]) break;
      for (std::size_t n = 0; n < N; ++n) offsets[n] -= shape[d] * strides[n][d];
      index[d] = 0;
    }
  }
}

// A shape seen as [outer, extent, inner] around one axis.
struct AxisView {
  std::int64_t outer = 1, extent = 1, inner = 1;
  AxisView(const Shape& shape, int axis);
};

}  // namespace tandem
