#include "core/dim.h"

#include <algorithm>
#include <array>

#include "core/check.h"
#include "core/numeric.h"

namespace tandem {

enum class AtomKind { symbol, floor_div, ceil_div, mod, min, max };

struct Dim::Atom {
  AtomKind kind;
  std::string name;      // symbol only
  std::vector<Dim> args;  // two of them otherwise
  std::size_t size = 1;   // atoms in the whole expression, counted as a tree
};

// Lets the free functions of this file reach the representation.
struct DimAccess {
  static std::vector<Dim::Term> terms(const Dim& d) {
    if (d.terms_) return *d.terms_;
    if (d.constant_ == 0) return {};
    return {{{}, d.constant_}};
  }
  static Dim make(std::vector<Dim::Term> terms) { return Dim(std::move(terms)); }
  static Dim atom(Dim::Atom a) { return Dim::atom(std::move(a)); }
  static std::size_t count(const Dim& d) { return d.terms_ ? d.terms_->size() : 1; }
};

namespace {

constexpr std::array kWords = {"symbol", "floordiv", "ceildiv", "mod", "min", "max"};
constexpr std::int64_t kSymbolLimit = std::int64_t{1} << 40;
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
    if (!out.empty() && compare(out.back().atoms, t.atoms) == 0)
      out.back().factor = checked_add(out.back().factor, t.factor);
    else
      out.push_back(std::move(t));
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
    if (rest != b.atoms.end() && compare(atom, *rest) == 0)
      ++rest;
    else
      out.atoms.push_back(atom);
  }
  if (rest != b.atoms.end()) return std::nullopt;
  return out;
}

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

bool is_name_start(char c) { return std::isalpha(static_cast<unsigned char>(c)) || c == '_' || c == '@'; }
bool is_name_part(char c) { return std::isalnum(static_cast<unsigned char>(c)) || c == '_' || c == '.'; }

}  // namespace

Dim::Dim(std::int64_t value) : constant_(value) {}

Dim::Dim(std::vector<Term> terms) {
  terms = canonical(std::move(terms));
  if (terms.empty()) return;
  limited_size(terms);
  if (terms.size() == 1 && terms[0].atoms.empty())
    constant_ = terms[0].factor;
  else
    terms_ = std::make_shared<const std::vector<Term>>(std::move(terms));
}

Dim Dim::atom(Atom a) {
  for (const Dim& d : a.args) a.size += limited_size(DimAccess::terms(d));
  return Dim({Term{{std::make_shared<const Atom>(std::move(a))}, 1}});
}

Dim Dim::symbol(std::string_view name) {
  const bool good = !name.empty() && is_name_start(name[0]) && std::all_of(name.begin() + 1, name.end(), is_name_part) && name != "@";
  if (!good) fail(ErrorCode::invalid_argument, "'{}' cannot name a symbolic dimension", name);
  return atom({AtomKind::symbol, std::string(name), {}});
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
  if (DimAccess::count(a) * DimAccess::count(b) > kSizeLimit) fail(ErrorCode::invalid_argument, "a dimension's expression has more than {} terms", kSizeLimit);
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

std::string Dim::to_string() const {
  if (!terms_) return std::to_string(constant_);
  std::string text;
  for (const Term& t : *terms_) {
    // "x+-9223372036854775808": the least integer has no positive counterpart that a '-' could precede.
    if (!text.empty() && (t.factor >= 0 || t.factor == INT64_MIN)) text += "+";
    if (t.factor < 0) text += "-";
    const std::uint64_t magnitude = t.factor < 0 ? -static_cast<std::uint64_t>(t.factor) : static_cast<std::uint64_t>(t.factor);
    std::string part = magnitude == 1 && !t.atoms.empty() ? "" : std::to_string(magnitude);
    for (const AtomPtr& a : t.atoms) {
      if (!part.empty()) part += "*";
      part += a->kind == AtomKind::symbol
                  ? a->name
                  : fmt::format("{}({},{})", kWords.at(static_cast<std::size_t>(a->kind)), a->args[0].to_string(), a->args[1].to_string());
    }
    text += part;
  }
  return text;
}

namespace {

// Recursive descent: sum := product (('+'|'-') product)*, product := unit (('*'|'/'|'%') unit)*.
class Parser {
 public:
  explicit Parser(std::string_view text) : text_(text) {}

  Dim all() {
    const Dim d = sum();
    if (skip() != '\0') refuse("unexpected rest");
    return d;
  }

 private:
  [[noreturn]] void refuse(std::string_view why) {
    fail(ErrorCode::invalid_argument, "dimension '{}': {} at position {}", text_, why, at_);
  }
  char skip() {
    while (at_ < text_.size() && text_[at_] == ' ') ++at_;
    return at_ < text_.size() ? text_[at_] : '\0';
  }
  bool take(char c) { return skip() == c ? (++at_, true) : false; }
  Dim sum() {
    if (++depth_ > 64) refuse("nested too deeply");
    Dim value = product();
    for (;;) {
      if (take('+')) value = value + product();
      else if (take('-')) value = value - product();
      else break;
    }
    --depth_;
    return value;
  }
  Dim product() {
    Dim value = unit();
    for (;;) {
      if (take('*')) value = value * unit();
      else if (take('/')) { take('/'); value = floor_div(value, unit()); }
      else if (take('%')) value = mod(value, unit());
      else return value;
    }
  }
  Dim unit() {
    if (++depth_ > 64) refuse("nested too deeply");
    const Dim value = unit_body();
    --depth_;
    return value;
  }
  std::int64_t number(int sign) {
    std::int64_t value = 0;
    while (at_ < text_.size() && std::isdigit(static_cast<unsigned char>(text_[at_])))
      value = checked_add(checked_multiply(value, 10), sign * (text_[at_++] - '0'));
    return value;
  }
  Dim unit_body() {
    const char c = skip();
    if (take('-')) return std::isdigit(static_cast<unsigned char>(skip())) ? number(-1) : Dim(-1) * unit();
    if (take('(')) {
      const Dim value = sum();
      if (!take(')')) refuse("')' expected");
      return value;
    }
    if (std::isdigit(static_cast<unsigned char>(c))) return number(1);
    if (!is_name_start(c)) refuse("a number, a name or '(' expected");
    const std::size_t begin = at_++;
    while (at_ < text_.size() && is_name_part(text_[at_])) ++at_;
    const std::string_view word = text_.substr(begin, at_ - begin);
    if (skip() != '(') return Dim::symbol(word);
    return call(word);
  }
  Dim call(std::string_view word) {
    take('(');
    const Dim a = sum();
    if (!take(',')) refuse("',' expected");
    const Dim b = sum();
    if (!take(')')) refuse("')' expected");
    if (word == "floordiv") return floor_div(a, b);
    if (word == "ceildiv") return ceil_div(a, b);
    if (word == "mod") return mod(a, b);
    if (word == "min" || word == "Min") return min(a, b);
    if (word == "max" || word == "Max") return max(a, b);
    refuse("unknown function");
  }

  std::string_view text_;
  std::size_t at_ = 0;
  int depth_ = 0;
};

}  // namespace

Dim Dim::parse(std::string_view text) { return Parser(text).all(); }

Dim product(const std::vector<Dim>& dims) {
  Dim all = 1;
  for (const Dim& d : dims) all = all * d;
  return all;
}

std::string to_string(const std::vector<Dim>& dims) {
  std::string text = "[";
  for (const Dim& d : dims) text += (text.size() > 1 ? "," : "") + d.to_string();
  return text + "]";
}

}  // namespace tandem
