#include "core/dim.h"

#include <algorithm>

#include "core/check.h"
#include "core/dim_atom.h"
#include "core/numeric.h"

namespace tandem {
namespace {

constexpr std::size_t kSizeLimit = 1 << 14;  // terms and atoms of one Dim; real models stay below a hundred

// Keeps hostile expressions, whose products grow exponentially, from taking time and memory.
std::size_t limited_size(const std::vector<Dim::Term>& terms) {
  std::size_t size = terms.size();
  for (const Dim::Term& t : terms)
    for (const Dim::AtomPtr& a : t.atoms) size += a->size;
  if (size > kSizeLimit) fail(ErrorCode::invalid_argument, "a dimension's expression has more than {} terms", kSizeLimit);
  return size;
}

std::strong_ordering compare(const Dim::AtomPtr& a, const Dim::AtomPtr& b);

std::strong_ordering compare(const Dim::Product& a, const Dim::Product& b) {
  for (std::size_t i = 0; i < std::min(a.size(), b.size()); ++i)
    if (auto order = compare(a[i], b[i]); order != 0) return order;
  return a.size() <=> b.size();
}

std::strong_ordering compare(const Dim::AtomPtr& a, const Dim::AtomPtr& b) {
  if (a == b) return std::strong_ordering::equal;
  if (auto order = a->kind <=> b->kind; order != 0) return order;
  if (auto order = a->name.compare(b->name) <=> 0; order != 0) return order;
  for (std::size_t i = 0; i < a->args.size(); ++i)
    if (auto order = a->args[i] <=> b->args[i]; order != 0) return order;
  return std::strong_ordering::equal;
}

// Longer products first, the constant last: the order people write polynomials in.
bool before(const Dim::Term& a, const Dim::Term& b) {
  if (a.atoms.size() != b.atoms.size()) return a.atoms.size() > b.atoms.size();
  return compare(a.atoms, b.atoms) < 0;
}

std::vector<Dim::Term> canonical(std::vector<Dim::Term> terms) {
  std::sort(terms.begin(), terms.end(), before);
  std::vector<Dim::Term> out;
  for (Dim::Term& t : terms) {
    if (!out.empty() && compare(out.back().atoms, t.atoms) == 0) out.back().factor = checked_add(out.back().factor, t.factor);
    else out.push_back(std::move(t));
    if (out.back().factor == 0) out.pop_back();
  }
  return out;
}

Dim::Term multiply(const Dim::Term& a, const Dim::Term& b) {
  Dim::Term out{a.atoms, checked_multiply(a.factor, b.factor)};
  out.atoms.insert(out.atoms.end(), b.atoms.begin(), b.atoms.end());
  std::sort(out.atoms.begin(), out.atoms.end(), [](const auto& x, const auto& y) { return compare(x, y) < 0; });
  return out;
}

// a / b for single terms, where it is exact.
std::optional<Dim::Term> divide(const Dim::Term& a, const Dim::Term& b) {
  if (b.factor == 0 || floor_modulo(a.factor, b.factor) != 0) return std::nullopt;
  Dim::Term out{{}, floor_divide(a.factor, b.factor)};
  auto rest = b.atoms.begin();
  for (const Dim::AtomPtr& atom : a.atoms) {
    if (rest != b.atoms.end() && compare(atom, *rest) == 0) ++rest;
    else out.atoms.push_back(atom);
  }
  if (rest != b.atoms.end()) return std::nullopt;
  return out;
}

Dim binary(AtomKind kind, const Dim& a, const Dim& b) {
  if (a.is_constant() && b.is_constant()) return apply(kind, a.constant(), b.constant());
  return DimAccess::atom({kind, "", {a, b}});
}

// The part of `a` whose every coefficient is a multiple of `by`, divided by it, and the rest.
std::pair<Dim, Dim> split_multiple(const Dim& a, std::int64_t by) {
  std::vector<Dim::Term> whole, rest;
  for (const Dim::Term& t : DimAccess::terms(a)) {
    const bool divides = t.atoms.empty() || t.factor % by == 0;
    const std::int64_t quotient = divides ? floor_divide(t.factor, by) : 0, remainder = divides ? floor_modulo(t.factor, by) : t.factor;
    if (quotient != 0) whole.push_back({t.atoms, quotient});
    if (remainder != 0) rest.push_back({t.atoms, remainder});
  }
  return {DimAccess::make(whole), DimAccess::make(rest)};
}

}  // namespace

Dim::Dim(std::int64_t value) : constant_(value) {}

Dim::Dim(std::vector<Term> terms) {
  terms = canonical(std::move(terms));
  if (terms.empty()) return;
  limited_size(terms);
  if (terms.size() == 1 && terms[0].atoms.empty()) constant_ = terms[0].factor;
  else terms_ = std::make_shared<const std::vector<Term>>(std::move(terms));
}

Dim Dim::atom(Atom a) {
  for (const Dim& d : a.args) a.size += limited_size(DimAccess::terms(d));
  return Dim({Term{{std::make_shared<const Atom>(std::move(a))}, 1}});
}

bool Dim::is_constant() const { return !terms_; }

std::int64_t Dim::constant() const {
  check(is_constant(), "Dim::constant() of " + to_string());
  return constant_;
}

std::optional<std::int64_t> Dim::value() const { return terms_ ? std::nullopt : std::optional(constant_); }

bool Dim::is_symbol() const {
  return terms_ && terms_->size() == 1 && terms_->front().factor == 1 && terms_->front().atoms.size() == 1 &&
         terms_->front().atoms[0]->kind == AtomKind::symbol;
}

// Polynomial long division by leading terms; gives up at the first remainder.
std::optional<Dim> Dim::exact_divide(const Dim& by) const {
  const auto divisor = DimAccess::terms(by);
  if (divisor.empty()) return std::nullopt;
  Dim rest = *this, quotient;
  for (int guard = 0; guard < 64; ++guard) {
    const auto terms = DimAccess::terms(rest);
    if (terms.empty()) return quotient;
    const auto step = divide(terms[0], divisor[0]);
    if (!step) return std::nullopt;
    quotient = quotient + DimAccess::make({*step});
    rest = rest - DimAccess::make({*step}) * by;
  }
  return std::nullopt;
}

std::strong_ordering Dim::operator<=>(const Dim& other) const {
  if (!terms_ && !other.terms_) return constant_ <=> other.constant_;
  if (terms_ == other.terms_) return std::strong_ordering::equal;
  const auto a = DimAccess::terms(*this), b = DimAccess::terms(other);
  for (std::size_t i = 0; i < std::min(a.size(), b.size()); ++i) {
    if (auto order = compare(a[i].atoms, b[i].atoms); order != 0) return order;
    if (auto order = a[i].factor <=> b[i].factor; order != 0) return order;
  }
  return a.size() <=> b.size();
}

Dim operator+(const Dim& a, const Dim& b) {
  if (!a.terms_ && !b.terms_) return checked_add(a.constant_, b.constant_);
  auto terms = DimAccess::terms(a);
  const auto more = DimAccess::terms(b);
  terms.insert(terms.end(), more.begin(), more.end());
  return DimAccess::make(std::move(terms));
}

Dim operator-(const Dim& a, const Dim& b) { return a + Dim(-1) * b; }

Dim operator*(const Dim& a, const Dim& b) {
  if (!a.terms_ && !b.terms_) return checked_multiply(a.constant_, b.constant_);
  if (DimAccess::count(a) * DimAccess::count(b) > kSizeLimit)
    fail(ErrorCode::invalid_argument, "a dimension's expression has more than {} terms", kSizeLimit);
  std::vector<Dim::Term> terms;
  for (const Dim::Term& x : DimAccess::terms(a))
    for (const Dim::Term& y : DimAccess::terms(b)) terms.push_back(multiply(x, y));
  return DimAccess::make(std::move(terms));
}

Dim floor_div(const Dim& a, const Dim& b) {
  if (b == Dim(1)) return a;
  if (auto exact = a.exact_divide(b)) return *exact;
  if (b.is_constant() && b.constant() > 1 && !a.is_constant()) {
    const auto [whole, rest] = split_multiple(a, b.constant());
    if (rest.is_constant()) return whole;  // 0 ≤ rest < b by construction
    return whole + binary(AtomKind::floor_div, rest, b);
  }
  return binary(AtomKind::floor_div, a, b);
}

Dim ceil_div(const Dim& a, const Dim& b) {
  if (b == Dim(1)) return a;
  if (auto exact = a.exact_divide(b)) return *exact;
  if (b.is_constant() && b.constant() > 1 && !a.is_constant()) {
    const auto [whole, rest] = split_multiple(a, b.constant());
    if (rest.is_constant()) return whole + Dim(rest.constant() > 0 ? 1 : 0);
    return whole + binary(AtomKind::ceil_div, rest, b);
  }
  return binary(AtomKind::ceil_div, a, b);
}

Dim mod(const Dim& a, const Dim& b) {
  if (b == Dim(1) || (!b.is_constant() && a.exact_divide(b))) return 0;
  if (b.is_constant() && b.constant() > 1) {
    const Dim rest = split_multiple(a, b.constant()).second;
    return rest.is_constant() ? rest : binary(AtomKind::mod, rest, b);
  }
  return binary(AtomKind::mod, a, b);
}

namespace {

// min and max: decided where the difference has a known sign for all non-negative symbols.
Dim extreme(AtomKind kind, const Dim& a, const Dim& b) {
  if (b < a) return extreme(kind, b, a);
  const Range difference = (a - b).bounds({});
  const bool low = kind == AtomKind::min;
  if (difference.min >= 0) return low ? b : a;
  if (difference.max <= 0) return low ? a : b;
  return binary(kind, a, b);
}

}  // namespace

Dim min(const Dim& a, const Dim& b) { return extreme(AtomKind::min, a, b); }
Dim max(const Dim& a, const Dim& b) { return extreme(AtomKind::max, a, b); }

}  // namespace tandem
