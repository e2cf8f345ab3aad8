#include "passes/attention_mask.h"

#include <algorithm>
#include <cmath>

#include "passes/affine.h"
#include "passes/match.h"

namespace tandem::passes {
namespace {

constexpr std::int64_t kTableLimit = 1 << 22;  // elements of a mask in the file

// The shift of `column position ≤ row position`, written either way round.
std::optional<Dim> shift_of_comparison(const Node& node, bool inverted, const Dim& rows, const Dim& columns) {
  const bool less = node.is("Less") || node.is("LessOrEqual"), greater = node.is("Greater") || node.is("GreaterOrEqual");
  const std::vector<Dim>& dims = node.result()->type.dims;
  const std::size_t rank = dims.size();
  if ((!less && !greater) || rank < 2 || dims[rank - 1] != columns || dims[rank - 2] != rows) return std::nullopt;
  bool strict = node.is("Less") || node.is("Greater");
  Value *small = node.operand(less ? 0 : 1), *large = node.operand(less ? 1 : 0);
  if (inverted) {  // not (a < b) is b ≤ a
    std::swap(small, large);
    strict = !strict;
  }
  const auto ahead = affine_difference(large, small, dims);
  if (!ahead || ahead->steps[rank - 1] != Dim(-1) || ahead->steps[rank - 2] != Dim(1) || ahead->moving().size() != 2) return std::nullopt;
  return ahead->offset - Dim(strict ? 1 : 0);
}

// The shift of a triangle of equal numbers: what it keeps is attended to (lower), or masked (upper).
std::optional<Dim> shift_of_triangle(const Value* value, bool inverted, const Dim& rows, const Dim& columns) {
  const Node* node = made_by(value, "Trilu");
  if (!node || value->type.rank() < 2) return std::nullopt;
  const auto& dims = value->type.dims;
  if (dims.back() != columns || dims[dims.size() - 2] != rows) return std::nullopt;
  for (std::size_t i = 0; i + 2 < dims.size(); ++i)
    if (dims[i] != Dim(1)) return std::nullopt;
  const auto number = number_of(node->operand(0));
  if (!number || *number == 0 || node->attributes.boolean("upper") != inverted) return std::nullopt;
  return node->attributes.dim("k") - Dim(inverted ? 1 : 0);
}

// One corner [rows, columns] of a table in the file, from [first row, first column] on.
struct Corner {
  Tensor table;
  Dim row = 0, column = 0;
};

std::optional<Corner> corner_of(const Value* value, int depth = 0) {
  const int rank = value->type.rank();
  if (auto known = constant_of(value, kTableLimit)) {
    for (int i = 0; i + 2 < rank; ++i)
      if (value->type.dims[static_cast<std::size_t>(i)] != Dim(1)) return std::nullopt;
    return rank >= 2 ? std::optional(Corner{*known}) : std::nullopt;
  }
  const Node* node = value->producer();
  if (!node || depth > 4) return std::nullopt;
  const bool widens = node->is("Cast") && value->type.dtype == DType::boolean;
  if (widens || node->is("Reshape")) return corner_of(node->operand(0), depth + 1);
  if (!node->is("Slice")) return std::nullopt;
  auto corner = corner_of(node->operand(0), depth + 1);
  const auto& axes = node->attributes.integers("axes");
  const auto& steps = node->attributes.integers("steps");
  for (std::size_t i = 0; corner && i < axes.size(); ++i) {
    const std::int64_t from_right = axes[i] < 0 ? -axes[i] : rank - axes[i];
    if (from_right > 2 || (!steps.empty() && steps[i] != 1)) return std::nullopt;
    Dim& start = from_right == 1 ? corner->column : corner->row;
    start = start + node->attributes.dims("starts")[i];
  }
  return corner;
}

// The shift of a table that holds `inside` where column ≤ row + shift and `outside` elsewhere.
std::optional<std::int64_t> shift_of_table(const Tensor& table, bool (*inside)(double), bool (*outside)(double)) {
  const std::int64_t columns = table.shape().back(), rows = columns == 0 ? 0 : table.count() / columns;
  std::int64_t shift = -1;
  while (shift + 1 < columns && inside(table.at(shift + 1))) ++shift;
  if (rows == 0 || shift + 1 >= columns) return std::nullopt;
  for (std::int64_t i = 0; i < rows; ++i)
    for (std::int64_t j = 0; j < columns; ++j)
      if (!(j <= i + shift ? inside : outside)(table.at(i * columns + j))) return std::nullopt;
  return shift;
}

// The shift of a condition or additive mask that is the corner of such a table.
std::optional<Dim> shift_of_corner(const Value* value, const Dim& rows, const Dim& columns, bool (*inside)(double),
                                   bool (*outside)(double)) {
  const auto& dims = value->type.dims;
  if (dims.size() < 2 || dims.back() != columns || dims[dims.size() - 2] != rows) return std::nullopt;
  const auto corner = corner_of(value);
  const auto shift = corner ? shift_of_table(corner->table, inside, outside) : std::nullopt;
  return shift ? std::optional(Dim(*shift) + corner->row - corner->column) : std::nullopt;
}

// The highest of the numbers that mask, so that what is concluded from it holds for all.
double masking_number(const Value* mask) {
  double low = -INFINITY;
  for (const double x : corner_of(mask)->table.to_doubles())
    if (x != 0) low = std::max(low, x);
  return low;
}

bool is_zero(double x) { return x == 0; }
bool is_no_zero(double x) { return x != 0; }
bool is_low_number(double x) { return is_low(x); }

void split(Value* value, bool inverted, const Dim& rows, const Dim& columns, GraphBuilder& builder, Allowed& into) {
  Node* node = value->producer();
  const bool is_and = node && (inverted ? node->is("Or") : node->is("And"));
  if (is_and) {
    split(node->operand(0), inverted, rows, columns, builder, into);
    return split(node->operand(1), inverted, rows, columns, builder, into);
  }
  if (node && node->is("Not")) return split(node->operand(0), !inverted, rows, columns, builder, into);
  if (node && (node->is("Expand") || node->is("Cast")) && node->operand(0)->type.dtype == DType::boolean)
    return split(node->operand(0), inverted, rows, columns, builder, into);
  if (node && node->is("Equal"))  // of a triangle of ones with 0
    if (const auto zero = with_number(node); zero && zero->number == 0)
      if (const auto shift = shift_of_triangle(zero->other, !inverted, rows, columns); shift && !into.shift) {
        into.shift = shift;
        return;
      }
  if (const auto number = number_of(value); number && (*number != 0) != inverted) return;  // allows everything
  auto shift = node ? shift_of_comparison(*node, inverted, rows, columns) : std::nullopt;
  if (!shift) shift = shift_of_triangle(value, inverted, rows, columns);
  if (!shift) shift = shift_of_corner(value, rows, columns, inverted ? is_zero : is_no_zero, inverted ? is_no_zero : is_zero);
  if (shift && !into.shift) into.shift = shift;
  else into.others.push_back(inverted ? builder.add("Not", {value}) : value);
}

}  // namespace

bool is_low(std::optional<double> value) { return value && *value <= -3e4; }

Allowed allowed_by(Value* condition, bool inverted, const Dim& rows, const Dim& columns, GraphBuilder& builder) {
  Allowed allowed{.shift = {}, .others = {}, .low = -INFINITY};
  split(condition, inverted, rows, columns, builder, allowed);
  return allowed;
}

std::optional<Allowed> allowed_by_additive(Value* mask, const Dim& rows, const Dim& columns, GraphBuilder& builder) {
  if (Node* cast = made_by(mask, "Cast"); cast && is_float(cast->operand(0)->type.dtype)) mask = cast->operand(0);
  if (Node* expand = made_by(mask, "Expand")) mask = expand->operand(0);
  if (Node* triangle = made_by(mask, "Trilu")) {
    const auto low = number_of(triangle->operand(0));
    const auto shift = shift_of_triangle(mask, true, rows, columns);
    return is_low(low) && shift ? std::optional(Allowed{shift, {}, *low}) : std::nullopt;
  }
  Node* where = made_by(mask, "Where");
  if (!where) {
    const auto shift = shift_of_corner(mask, rows, columns, is_zero, is_low_number);
    return shift ? std::optional(Allowed{shift, {}, masking_number(mask)}) : std::nullopt;
  }
  const auto yes = number_of(where->operand(1)), no = number_of(where->operand(2));
  const bool inverted = is_low(yes);
  if (!(inverted ? no == 0.0 : yes == 0.0 && is_low(no))) return std::nullopt;
  Allowed allowed = allowed_by(where->operand(0), inverted, rows, columns, builder);
  allowed.low = inverted ? *yes : *no;
  return allowed;
}

}  // namespace tandem::passes
