// How a Dim is kept. Private to the files dim*.cpp.
#pragma once

#include "core/dim.h"

namespace tandem {

enum class AtomKind { symbol, floor_div, ceil_div, mod, min, max };

struct Dim::Atom {
  AtomKind kind;
  std::string name;       // symbol only
  std::vector<Dim> args;  // two of them otherwise
  std::size_t size = 1;   // atoms in the whole expression, counted as a tree
};

// Lets free functions reach the representation.
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

// Of two numbers; throws Error(invalid_argument) for a division by zero.
std::int64_t apply(AtomKind kind, std::int64_t a, std::int64_t b);

}  // namespace tandem
