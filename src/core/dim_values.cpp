// What a Dim is for values or ranges of its symbols.
#include <algorithm>
#include <array>

#include "core/check.h"
#include "core/dim_atom.h"
#include "core/numeric.h"

namespace tandem {
namespace {

constexpr std::int64_t kSymbolLimit = std::int64_t{1} << 40;

std::int64_t saturate(__int128 value) {
  constexpr __int128 limit = std::int64_t{1} << 62;
  return static_cast<std::int64_t>(std::clamp(value, -limit, limit));
}

Range combine(Range a, Range b, std::int64_t (*f)(std::int64_t, std::int64_t)) {
  const std::array corners = {f(a.min, b.min), f(a.min, b.max), f(a.max, b.min), f(a.max, b.max)};
  return {*std::min_element(corners.begin(), corners.end()), *std::max_element(corners.begin(), corners.end())};
}

Range multiply(Range a, Range b) {
  return combine(a, b, [](std::int64_t x, std::int64_t y) { return saturate(static_cast<__int128>(x) * y); });
}

}  // namespace

std::int64_t apply(AtomKind kind, std::int64_t a, std::int64_t b) {
  switch (kind) {
    case AtomKind::floor_div: return floor_divide(a, b);
    case AtomKind::ceil_div: return ceil_divide(a, b);
    case AtomKind::mod: return b == 0 ? floor_divide(a, b) : floor_modulo(a, b);
    case AtomKind::min: return std::min(a, b);
    case AtomKind::max: return std::max(a, b);
    case AtomKind::symbol: break;
  }
  check(false, "a symbol is no function");
  return 0;
}

std::int64_t Dim::evaluate(const SymbolValues& values) const {
  if (!terms_) return constant_;
  std::int64_t sum = 0;
  for (const Term& t : *terms_) {
    std::int64_t value = t.factor;
    for (const AtomPtr& a : t.atoms) {
      if (a->kind == AtomKind::symbol) {
        const auto found = values.find(a->name);
        if (found == values.end()) fail(ErrorCode::invalid_argument, "symbolic dimension '{}' has no value", a->name);
        value = checked_multiply(value, found->second);
      } else {
        value = checked_multiply(value, apply(a->kind, a->args[0].evaluate(values), a->args[1].evaluate(values)));
      }
    }
    sum = checked_add(sum, value);
  }
  return sum;
}

namespace {

Dim rebuild(const Dim::Atom& atom, const std::map<std::string, Dim, std::less<>>& replacements) {
  if (atom.kind == AtomKind::symbol) {
    const auto found = replacements.find(atom.name);
    return found == replacements.end() ? Dim::symbol(atom.name) : found->second;
  }
  const Dim a = atom.args[0].substitute(replacements), b = atom.args[1].substitute(replacements);
  switch (atom.kind) {
    case AtomKind::floor_div: return floor_div(a, b);
    case AtomKind::ceil_div: return ceil_div(a, b);
    case AtomKind::mod: return mod(a, b);
    case AtomKind::min: return min(a, b);
    default: return max(a, b);
  }
}

}  // namespace

Dim Dim::substitute(const std::map<std::string, Dim, std::less<>>& replacements) const {
  Dim sum;
  for (const Term& t : DimAccess::terms(*this)) {
    Dim value = t.factor;
    for (const AtomPtr& a : t.atoms) value = value * rebuild(*a, replacements);
    sum = sum + value;
  }
  return sum;
}

Range Dim::bounds(const SymbolRanges& ranges) const {
  Range sum{0, 0};
  for (const Term& t : DimAccess::terms(*this)) {
    Range value{t.factor, t.factor};
    for (const AtomPtr& a : t.atoms) {
      Range r{0, kSymbolLimit};
      if (a->kind == AtomKind::symbol) {
        if (auto found = ranges.find(a->name); found != ranges.end()) r = found->second;
      } else {
        const Range x = a->args[0].bounds(ranges), y = a->args[1].bounds(ranges);
        switch (a->kind) {
          case AtomKind::min: r = {std::min(x.min, y.min), std::min(x.max, y.max)}; break;
          case AtomKind::max: r = {std::max(x.min, y.min), std::max(x.max, y.max)}; break;
          case AtomKind::mod: r = {0, std::max<std::int64_t>(0, std::min(y.max - 1, x.min >= 0 ? x.max : y.max - 1))}; break;
          default: {
            const Range positive{std::max<std::int64_t>(1, y.min), std::max<std::int64_t>(1, y.max)};
            r = combine(x, positive, a->kind == AtomKind::floor_div ? floor_divide : ceil_divide);
          }
        }
      }
      value = multiply(value, r);
    }
    sum = {saturate(static_cast<__int128>(sum.min) + value.min), saturate(static_cast<__int128>(sum.max) + value.max)};
  }
  return sum;
}

void Dim::collect_symbols(std::set<std::string>& into) const {
  for (const Term& t : DimAccess::terms(*this))
    for (const AtomPtr& a : t.atoms) {
      if (a->kind == AtomKind::symbol) into.insert(a->name);
      for (const Dim& d : a->args) d.collect_symbols(into);
    }
}

}  // namespace tandem
