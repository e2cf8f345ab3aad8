// Dims as text.
#include <algorithm>
#include <array>

#include "core/check.h"
#include "core/dim_atom.h"
#include "core/numeric.h"

namespace tandem {
namespace {

constexpr std::array kWords = {"symbol", "floordiv", "ceildiv", "mod", "min", "max"};

bool is_name_start(char c) { return std::isalpha(static_cast<unsigned char>(c)) || c == '_' || c == '@'; }
bool is_name_part(char c) { return std::isalnum(static_cast<unsigned char>(c)) || c == '_' || c == '.'; }

}  // namespace

Dim Dim::symbol(std::string_view name) {
  const bool good = !name.empty() && is_name_start(name[0]) && std::all_of(name.begin() + 1, name.end(), is_name_part) && name != "@";
  if (!good) fail(ErrorCode::invalid_argument, "'{}' cannot name a symbolic dimension", name);
  return atom({AtomKind::symbol, std::string(name), {}});
}

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
      else if (take('/')) {
        take('/');
        value = floor_div(value, unit());
      } else if (take('%')) value = mod(value, unit());
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
