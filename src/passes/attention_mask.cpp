#include "passes/attention_mask.h"

#include <cmath>

#include "passes/match.h"

namespace tandem::passes {
namespace {

// offset + index along one dimension, counted from the right; all other extents are 1.
struct Positions {
  int from_right;
  Dim extent, offset;
};

std::optional<Positions> positions_of(const Value* value) {
  const Value* source = value;
  Dim offset = 0;
  for (int depth = 0; depth < 8 && !made_by(source, "Iota"); ++depth) {
    const Node* node = source->producer();
    if (!node) return std::nullopt;
    if (node->is("Reshape") || node->is("Cast")) {
      source = node->operand(0);
    } else if (node->is("Add")) {
      const auto step = with_number(node);
      if (!step) return std::nullopt;
      offset = offset + Dim(static_cast<std::int64_t>(step->number));
      source = step->other;
    } else {
      return std::nullopt;
    }
  }
  const Node* iota = made_by(source, "Iota");
  if (!iota) return std::nullopt;
  const Dim extent = iota->attributes.dim("extent");
  std::optional<int> at;
  for (int i = 0; i < value->type.rank(); ++i) {
    const Dim& d = value->type.dims[static_cast<std::size_t>(i)];
    if (d == Dim(1)) continue;
    if (at || d != extent) return std::nullopt;
    at = value->type.rank() - 1 - i;
  }
  return at ? std::optional(Positions{*at, extent, iota->attributes.dim("offset") + offset}) : std::nullopt;
}

// The shift of `column position ≤ row position`, written either way round.
std::optional<Dim> shift_of_comparison(const Node& node, bool inverted, const Dim& rows, const Dim& columns) {
  const bool less = node.is("Less") || node.is("LessOrEqual"), greater = node.is("Greater") || node.is("GreaterOrEqual");
  if (!less && !greater) return std::nullopt;
  bool strict = node.is("Less") || node.is("Greater");
  Value *small = node.operand(less ? 0 : 1), *large = node.operand(less ? 1 : 0);
  if (inverted) {  // not (a < b) is b ≤ a
    std::swap(small, large);
    strict = !strict;
  }
  const auto column = positions_of(small), row = positions_of(large);
  if (!column || !row || column->from_right != 0 || row->from_right != 1) return std::nullopt;
  if (column->extent != columns || row->extent != rows) return std::nullopt;
  return row->offset - column->offset - Dim(strict ? 1 : 0);
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
  if (shift && !into.shift) into.shift = shift;
  else into.others.push_back(inverted ? builder.add("Not", {value}) : value);
}

}  // namespace

bool is_low(std::optional<double> value) { return value && *value <= -3e4; }

Allowed allowed_by(Value* condition, bool inverted, const Dim& rows, const Dim& columns, GraphBuilder& builder) {
  Allowed allowed{.low = -INFINITY};
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
  if (!where) return std::nullopt;
  const auto yes = number_of(where->operand(1)), no = number_of(where->operand(2));
  const bool inverted = is_low(yes);
  if (!(inverted ? no == 0.0 : yes == 0.0 && is_low(no))) return std::nullopt;
  Allowed allowed = allowed_by(where->operand(0), inverted, rows, columns, builder);
  allowed.low = inverted ? *yes : *no;
  return allowed;
}

}  // namespace tandem::passes
