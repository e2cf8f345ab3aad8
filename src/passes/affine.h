// Integer values that are linear in their own indices, as positions are: value[i₀,i₁,…] = offset + Σ stepₐ·iₐ.
#pragma once

#include <optional>
#include <vector>

#include "graph/graph.h"

namespace tandem::passes {

struct Affine {
  Dim offset;
  std::vector<Dim> steps;  // one per dimension; 0 along extents of 1

  // The dimensions along which it changes.
  std::vector<std::size_t> moving() const;
};

// Follows Iota, tables, shape arithmetic and what moves or adds those; nothing for anything else.
std::optional<Affine> affine_of(const Value* value);
// a − b over the broadcast dimensions `dims`.
std::optional<Affine> affine_difference(const Value* a, const Value* b, const std::vector<Dim>& dims);
// Bounds of the elements for all values of the symbols; nothing where a step has no sign.
std::optional<Range> bounds_of(const Affine& affine, const std::vector<Dim>& dims, const SymbolRanges& ranges);

}  // namespace tandem::passes
