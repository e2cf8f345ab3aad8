#include "ops/pointwise/dim_rules.h"

#include "ops/pointwise/scalar.h"

namespace tandem::dim_rules {

Result divide(const Dim& a, const Dim& b) {
  if (b == Dim(0)) return std::nullopt;
  if (a.is_constant() && b.is_constant()) return scalar::divide(a.constant(), b.constant());
  if (auto exact = a.exact_divide(b)) return *exact;
  // Truncation and floor agree for a ≥ 0, b ≥ 0; a divisor that is zero at run time fails there.
  if (a.bounds({}).min >= 0 && b.bounds({}).min >= 0) return floor_div(a, b);
  // So they do where a is negative, but closer to 0 than b, once it is taken for 0: (S - 1)/2 with S ≥ 0.
  if (b.is_constant() && max(Dim(0) - a, Dim(0)).bounds({}).max < b.constant()) return floor_div(max(a, Dim(0)), b);
  return std::nullopt;
}

Result modulo(const Dim& a, const Dim& b) {
  if (b == Dim(0)) return std::nullopt;
  if (a.is_constant() && b.is_constant()) return scalar::remainder_of_divisor(a.constant(), b.constant());
  if (b.bounds({}).min >= 0) return mod(a, b);
  return std::nullopt;
}

Result less(const Dim& a, const Dim& b) {
  const Range difference = (b - a).bounds({});
  if (difference.min > 0) return Dim(1);
  if (difference.max <= 0) return Dim(0);
  return std::nullopt;
}

Result equal(const Dim& a, const Dim& b) {
  if (a == b) return Dim(1);
  return may_be_equal(a, b) ? std::nullopt : Result(Dim(0));
}

Result less_or_equal(const Dim& a, const Dim& b) {
  const Result greater = less(b, a);
  return greater ? negated(*greater) : std::nullopt;
}

Result absolute(const Dim& a) {
  const Range r = a.bounds({});
  if (r.min >= 0) return a;
  return r.max <= 0 ? negative(a) : std::nullopt;
}

Result sign(const Dim& a) {
  const Range r = a.bounds({});
  if (r.min > 0) return Dim(1);
  if (r.max < 0) return Dim(-1);
  return a == Dim(0) ? Result(Dim(0)) : std::nullopt;
}

Result is_nonzero(const Dim& a) {
  const Result same = equal(a, 0);
  return same ? negated(*same) : std::nullopt;
}

}  // namespace tandem::dim_rules
