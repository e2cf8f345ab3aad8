// Pointwise arithmetic on contents known as Dims, element by element. std::nullopt where the result cannot be decided for
// all values of the symbols; booleans are 0 and 1.
#pragma once

#include <optional>

#include "graph/op_def.h"
#include "ops/shape_rules.h"

namespace tandem::dim_rules {

using Result = std::optional<Dim>;

inline Result plus(const Dim& a, const Dim& b) { return a + b; }
inline Result minus(const Dim& a, const Dim& b) { return a - b; }
inline Result times(const Dim& a, const Dim& b) { return a * b; }
inline Result smaller(const Dim& a, const Dim& b) { return min(a, b); }
inline Result larger(const Dim& a, const Dim& b) { return max(a, b); }
Result divide(const Dim& a, const Dim& b);  // truncating
Result modulo(const Dim& a, const Dim& b);
Result less(const Dim& a, const Dim& b);
inline Result greater(const Dim& a, const Dim& b) { return less(b, a); }
Result less_or_equal(const Dim& a, const Dim& b);
inline Result greater_or_equal(const Dim& a, const Dim& b) { return less_or_equal(b, a); }
Result equal(const Dim& a, const Dim& b);
inline Result either(const Dim& a, const Dim& b) { return a + b - a * b; }
inline Result one_only(const Dim& a, const Dim& b) { return a + b - Dim(2) * a * b; }
inline Result negated(const Dim& truth) { return Dim(1) - truth; }
inline Result negative(const Dim& a) { return Dim(0) - a; }
Result absolute(const Dim& a);
Result sign(const Dim& a);
Result is_nonzero(const Dim& a);

// Maps one, two or three contents to the result's, broadcasting; std::nullopt if any element is undecided.
template <auto F>
std::optional<DimContent> fold(const OpCall& call, std::span<const std::optional<DimContent>> contents) {
  constexpr bool kOne = std::is_invocable_v<decltype(F), const Dim&>, kTwo = std::is_invocable_v<decltype(F), const Dim&, const Dim&>;
  constexpr std::size_t kCount = kOne ? 1 : kTwo ? 2 : 3;
  const auto shape = known_shape(call.results.at(0).dims);
  if (!shape || contents.size() != kCount) return std::nullopt;
  std::array<Shape, kCount> strides;
  for (std::size_t n = 0; n < kCount; ++n) {
    const auto own = known_shape(call.operand(n).dims);
    if (!contents[n] || !own) return std::nullopt;
    strides[n] = strides_over(*own, *shape);
  }
  DimContent out;
  bool known = true;
  for_each_offset<kCount>(*shape, strides, [&](std::int64_t, const auto& at) {
    const auto element = [&](std::size_t n) -> const Dim& { return (*contents[n])[static_cast<std::size_t>(at[n])]; };
    Result r;
    if constexpr (kCount == 1) r = F(element(0));
    if constexpr (kCount == 2) r = F(element(0), element(1));
    if constexpr (kCount == 3) r = F(element(0), element(1), element(2));
    known = known && r.has_value();
    if (known) out.push_back(*r);
  });
  return known ? std::optional(out) : std::nullopt;
}

}  // namespace tandem::dim_rules
