#include "passes/affine.h"

#include <algorithm>

#include "graph/builder.h"
#include "passes/match.h"

namespace tandem::passes {
namespace {

constexpr int kDepth = 24;

std::optional<Affine> follow(const Value* value, int depth);

// Dimensions of extent 1 do not move.
Affine tidy(Affine affine, const std::vector<Dim>& dims) {
  for (std::size_t i = 0; i < dims.size(); ++i)
    if (dims[i] == Dim(1)) affine.steps[i] = 0;
  return affine;
}

// The same over dimensions it broadcasts to.
std::optional<Affine> spread(const std::optional<Affine>& affine, std::size_t rank) {
  if (!affine || affine->steps.size() > rank) return std::nullopt;
  Affine out{affine->offset, std::vector<Dim>(rank - affine->steps.size(), Dim(0))};
  out.steps.insert(out.steps.end(), affine->steps.begin(), affine->steps.end());
  return out;
}

std::optional<Affine> of_contents(const Value* value) {
  std::optional<DimContent> contents;
  if (const auto known = constant_of(value)) {
    contents.emplace();
    for (const std::int64_t v : known->to_ints()) contents->emplace_back(v);
  } else {
    contents = GraphBuilder(value->graph()).dims_of(value);
  }
  if (!contents || contents->empty()) return std::nullopt;
  Affine out{contents->front(), std::vector<Dim>(value->type.dims.size(), Dim(0))};
  std::vector<std::size_t> extents, strides(value->type.dims.size(), 1);
  for (const Dim& d : value->type.dims) extents.push_back(static_cast<std::size_t>(d.constant()));
  for (std::size_t d = extents.size(); d-- > 1;) strides[d - 1] = strides[d] * extents[d];
  for (std::size_t d = 0; d < extents.size(); ++d)
    if (extents[d] > 1) out.steps[d] = (*contents)[strides[d]] - out.offset;
  for (std::size_t i = 0; i < contents->size(); ++i) {
    Dim expected = out.offset;
    for (std::size_t d = 0; d < extents.size(); ++d)
      expected = expected + out.steps[d] * Dim(static_cast<std::int64_t>(i / strides[d] % extents[d]));
    if (expected != (*contents)[i]) return std::nullopt;
  }
  return out;
}

// Extents other than 1, with their steps.
struct Moving {
  std::vector<Dim> extents, steps;
};

Moving without_ones(const std::vector<Dim>& dims, const std::vector<Dim>& steps) {
  Moving out;
  for (std::size_t i = 0; i < dims.size(); ++i) {
    if (dims[i] == Dim(1)) continue;
    out.extents.push_back(dims[i]);
    out.steps.push_back(steps[i]);
  }
  return out;
}

// Ones come and go; or neighbours whose steps continue each other merge into one dimension.
std::optional<Affine> reshaped(const Node& node, int depth) {
  const auto from = follow(node.operand(0), depth);
  if (!from) return std::nullopt;
  const std::vector<Dim>& dims = node.result()->type.dims;
  Moving moving = without_ones(node.operand(0)->type.dims, from->steps);
  const Moving wanted = without_ones(dims, std::vector<Dim>(dims.size(), Dim(0)));
  if (moving.extents != wanted.extents) {
    if (wanted.extents.size() != 1) return std::nullopt;
    while (moving.extents.size() > 1) {
      const std::size_t last = moving.extents.size() - 1;
      if (moving.steps[last - 1] != moving.steps[last] * moving.extents[last]) return std::nullopt;
      moving.steps.erase(moving.steps.begin() + static_cast<std::ptrdiff_t>(last) - 1);
      moving.extents[last - 1] = moving.extents[last - 1] * moving.extents[last];
      moving.extents.pop_back();
    }
    if (moving.extents != wanted.extents) return std::nullopt;
  }
  Affine out{from->offset, {}};
  std::size_t next = 0;
  for (const Dim& d : dims) out.steps.push_back(d == Dim(1) ? Dim(0) : moving.steps[next++]);
  return out;
}

std::optional<Affine> sliced(const Node& node, int depth) {
  auto out = follow(node.operand(0), depth);
  if (!out) return std::nullopt;
  const auto& axes = node.attributes.integers("axes");
  const auto& steps = node.attributes.integers("steps");
  for (std::size_t i = 0; i < axes.size(); ++i) {
    const auto axis = static_cast<std::size_t>(axes[i] < 0 ? axes[i] + static_cast<std::int64_t>(out->steps.size()) : axes[i]);
    out->offset = out->offset + node.attributes.dims("starts")[i] * out->steps[axis];
    if (!steps.empty()) out->steps[axis] = out->steps[axis] * Dim(steps[i]);
  }
  return tidy(*out, node.result()->type.dims);
}

std::optional<Affine> transposed(const Node& node, int depth) {
  const auto from = follow(node.operand(0), depth);
  if (!from) return std::nullopt;
  Affine out{from->offset, {}};
  for (const std::int64_t p : node.attributes.integers("permutation")) out.steps.push_back(from->steps[static_cast<std::size_t>(p)]);
  return out;
}

Affine combined(const Affine& a, const Affine& b, const Dim& factor) {
  Affine out = a;
  out.offset = out.offset + b.offset * factor;
  for (std::size_t i = 0; i < out.steps.size(); ++i) out.steps[i] = out.steps[i] + b.steps[i] * factor;
  return out;
}

// a ± b, or a·b where one of them is the same everywhere.
std::optional<Affine> arithmetic(const Node& node, int depth) {
  const std::size_t rank = node.result()->type.dims.size();
  const auto a = spread(follow(node.operand(0), depth), rank);
  const auto b = a ? spread(follow(node.operand(1), depth), rank) : std::nullopt;
  if (!a || !b) return std::nullopt;
  if (!node.is("Mul")) return combined(*a, *b, node.is("Add") ? 1 : -1);
  const Affine zero{0, std::vector<Dim>(rank, Dim(0))};
  if (b->moving().empty()) return combined(zero, *a, b->offset);
  return a->moving().empty() ? std::optional(combined(zero, *b, a->offset)) : std::nullopt;
}

std::optional<Affine> follow(const Value* value, int depth) {
  if (!value || depth <= 0 || !is_integer(value->type.dtype)) return std::nullopt;
  const Node* node = value->producer();
  if (value->weight() || (node && (node->is("Constant") || node->is("DimValue")))) return of_contents(value);
  if (!node) return std::nullopt;
  const std::vector<Dim>& dims = value->type.dims;
  if (node->is("Iota")) return tidy({node->attributes.dim("offset"), {1}}, dims);
  if (node->is("Cast")) return follow(node->operand(0), depth - 1);
  if (node->is("Reshape")) return reshaped(*node, depth - 1);
  if (node->is("Transpose")) return transposed(*node, depth - 1);
  if (node->is("Slice")) return sliced(*node, depth - 1);
  if (node->is("Expand")) return spread(follow(node->operand(0), depth - 1), dims.size());
  if (node->is("Add") || node->is("Sub") || node->is("Mul")) return arithmetic(*node, depth - 1);
  return std::nullopt;
}

}  // namespace

std::vector<std::size_t> Affine::moving() const {
  std::vector<std::size_t> out;
  for (std::size_t i = 0; i < steps.size(); ++i)
    if (steps[i] != Dim(0)) out.push_back(i);
  return out;
}

std::optional<Affine> affine_of(const Value* value) { return follow(value, kDepth); }

std::optional<Affine> affine_difference(const Value* a, const Value* b, const std::vector<Dim>& dims) {
  const auto left = spread(affine_of(a), dims.size()), right = left ? spread(affine_of(b), dims.size()) : std::nullopt;
  return right ? std::optional(combined(*left, *right, -1)) : std::nullopt;
}

std::optional<Range> bounds_of(const Affine& affine, const std::vector<Dim>& dims, const SymbolRanges& ranges) {
  Dim low = affine.offset, high = affine.offset;
  for (std::size_t i = 0; i < dims.size(); ++i) {
    const Range step = affine.steps[i].bounds(ranges);
    const Dim most = affine.steps[i] * (dims[i] - Dim(1));
    if (step.min >= 0) high = high + most;
    else if (step.max <= 0) low = low + most;
    else return std::nullopt;
  }
  return Range{low.bounds(ranges).min, high.bounds(ranges).max};
}

}  // namespace tandem::passes
