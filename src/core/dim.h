// Dim: an extent or an index known before the run, as an expression over named symbols.
//
// Always kept in one canonical form (a sum of integer coefficients times products of atoms, an atom being a
// symbol or a floordiv, ceildiv, mod, min, max of two Dims), so that == decides equality of what can be proved
// equal by polynomial arithmetic. Immutable and cheap to copy; safe to share between threads.
// Symbols are non-negative integers. A symbol that starts with '@' is the coordinate of this rank on the mesh
// axis of that name and is bound when a Context is made.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

namespace tandem {

class Dim;

// Values of symbols, and their ranges.
using SymbolValues = std::map<std::string, std::int64_t, std::less<>>;
struct Range {
  std::int64_t min = 0;
  std::int64_t max = 0;
  bool operator==(const Range&) const = default;
};
using SymbolRanges = std::map<std::string, Range, std::less<>>;

class Dim {
 public:
  Dim(std::int64_t value = 0);
  // A name of letters, digits, '_', '.' that starts with a letter, '_' or '@'; throws Error(invalid_argument) otherwise.
  static Dim symbol(std::string_view name);
  // Reads what to_string writes, and also '/' and '//' as floordiv, '%' as mod. Throws Error(invalid_argument).
  static Dim parse(std::string_view text);

  bool is_constant() const;
  // The value; throws Error(internal) unless is_constant().
  std::int64_t constant() const;
  // The constant, if it is one.
  std::optional<std::int64_t> value() const;
  bool is_symbol() const;

  // Throws Error(invalid_argument) naming a symbol that has no value, and on overflow or division by zero.
  std::int64_t evaluate(const SymbolValues& values) const;
  Dim substitute(const std::map<std::string, Dim, std::less<>>& replacements) const;
  // Bounds by interval arithmetic; a symbol without a range is 0 … 2^40. Saturates instead of overflowing.
  Range bounds(const SymbolRanges& ranges) const;
  void collect_symbols(std::set<std::string>& into) const;

  // a/b where it leaves no remainder for any values of the symbols (b ≠ 0 assumed), else nothing.
  std::optional<Dim> exact_divide(const Dim& by) const;

  std::string to_string() const;

  // A total order on the canonical forms, for use as a key; says nothing about the values.
  std::strong_ordering operator<=>(const Dim& other) const;
  bool operator==(const Dim& other) const { return (*this <=> other) == 0; }

  friend Dim operator+(const Dim& a, const Dim& b);
  friend Dim operator-(const Dim& a, const Dim& b);
  friend Dim operator*(const Dim& a, const Dim& b);
  friend Dim floor_div(const Dim& a, const Dim& b);
  friend Dim ceil_div(const Dim& a, const Dim& b);
  friend Dim mod(const Dim& a, const Dim& b);
  friend Dim min(const Dim& a, const Dim& b);
  friend Dim max(const Dim& a, const Dim& b);

  struct Atom;
  using AtomPtr = std::shared_ptr<const Atom>;
  using Product = std::vector<AtomPtr>;  // sorted; empty for the constant term
  struct Term {
    Product atoms;
    std::int64_t factor;
  };

 private:
  explicit Dim(std::vector<Term> terms);
  static Dim atom(Atom atom);
  friend struct DimAccess;

  std::shared_ptr<const std::vector<Term>> terms_;  // sorted, no zero factors; null for the constant below
  std::int64_t constant_ = 0;
};

Dim product(const std::vector<Dim>& dims);
std::string to_string(const std::vector<Dim>& dims);

}  // namespace tandem
