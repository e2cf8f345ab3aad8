#include "ops/layout/reshape_rule.h"

#include <array>

namespace tandem {
namespace {

// Walks both lists from the left (the major end), keeping what is left of the current dimension of each.
class Refinement {
 public:
  Refinement(const std::vector<Dim>& from, const std::vector<Dim>& to) : sides_{Side{from, {}}, Side{to, {}}} {
    for (Side& s : sides_) s.factors.resize(s.dims.size());
    rule_.operands.resize(1);
  }

  ShardingRule run() {
    while (advance(sides_[0]) && advance(sides_[1])) {
      Side &a = sides_[0], &b = sides_[1];
      if (a.rest == b.rest) {
        take(rule_.add(a.rest), {true, true});
        a.rest = b.rest = 1;
      } else if (const auto quotient = a.rest.exact_divide(b.rest)) {
        take(rule_.add(b.rest), {true, true});
        a.rest = *quotient;
        b.rest = 1;
      } else if (const auto other = b.rest.exact_divide(a.rest)) {
        take(rule_.add(a.rest), {true, true});
        b.rest = *other;
        a.rest = 1;
      } else {
        skip_stretch();
      }
    }
    for (Side& s : sides_)
      while (advance(s)) keep_whole(s);
    rule_.operands[0] = sides_[0].factors;
    rule_.results = {sides_[1].factors};
    return rule_;
  }

 private:
  struct Side {
    const std::vector<Dim>& dims;
    std::vector<ShardingRule::DimFactors> factors;
    std::size_t next = 0;
    Dim rest = 1;  // of dims[next - 1]
  };

  // Moves on to the next extent that is not 1; false at the end.
  static bool advance(Side& s) {
    while (s.rest == Dim(1) && s.next < s.dims.size()) s.rest = s.dims[s.next++];
    return s.rest != Dim(1);
  }

  void take(int factor, std::array<bool, 2> of) {
    for (std::size_t i = 0; i < 2; ++i)
      if (of[i]) sides_[i].factors[sides_[i].next - 1].push_back(factor);
  }

  void keep_whole(Side& s) {
    s.factors[s.next - 1].push_back(rule_.add(s.rest, ShardingRule::Role::whole));
    s.rest = 1;
  }

  // The shortest continuation of both sides with equal products must stay whole; without one, everything that follows.
  void skip_stretch() {
    Side &a = sides_[0], &b = sides_[1];
    std::size_t a_end = a.dims.size(), b_end = b.dims.size();
    Dim a_product = a.rest;
    for (std::size_t i = a.next; i <= a.dims.size() && a_end == a.dims.size(); ++i) {
      if (i > a.next) a_product = a_product * a.dims[i - 1];
      Dim b_product = b.rest;
      for (std::size_t j = b.next; j <= b.dims.size(); ++j) {
        if (j > b.next) b_product = b_product * b.dims[j - 1];
        if (a_product != b_product) continue;
        a_end = i;
        b_end = j;
        break;
      }
    }
    while (a.next < a_end || a.rest != Dim(1)) finish(a, a_end);
    while (b.next < b_end || b.rest != Dim(1)) finish(b, b_end);
  }

  void finish(Side& s, std::size_t end) {
    if (s.rest == Dim(1) && s.next < end) s.rest = s.dims[s.next++];
    if (s.rest != Dim(1)) keep_whole(s);
  }

  std::array<Side, 2> sides_;
  ShardingRule rule_;
};

}  // namespace

ShardingRule reshape_rule(const std::vector<Dim>& from, const std::vector<Dim>& to) { return Refinement(from, to).run(); }

}  // namespace tandem
