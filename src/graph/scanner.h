// Scanner: reads the words of the text form. Blanks, line ends and comments (# to the end of the line) separate words.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "core/check.h"
#include "core/dim.h"

namespace tandem {

inline constexpr int kMaxTextDepth = 64;  // nested regions, recipes, lists

class Scanner {
 public:
  explicit Scanner(std::string_view text) : text_(text) {}

  // The next character that is no blank; '\0' at the end.
  char peek();
  bool take(char c);
  bool take_word(std::string_view word);  // only as a whole word
  void expect(char c);
  // Letters, digits, '_' and '.', not starting with a digit.
  std::string_view word(std::string_view expected);
  // A bare or quoted name.
  std::string name(std::string_view expected);
  std::string quoted(std::string_view expected);
  std::int64_t integer(std::string_view expected);
  std::uint64_t unsigned_integer(std::string_view expected);
  // A number, inf, -inf or nan; T is float or double, so that nothing is rounded twice.
  template <typename T>
  T real();
  // Hexadecimal digits, at most 16, after "0x" was taken.
  std::uint64_t hex();
  bool take_hex_prefix();
  // A dimension: everything up to a delimiter outside parentheses.
  Dim dim();
  std::size_t position() { return peek(), at_; }

  [[noreturn]] void refuse(std::string_view expected);
  [[noreturn]] void refuse_at(std::size_t position, std::string_view message);
  // Runs f; what it refuses is reported at `position`.
  template <typename F>
  auto at(std::size_t position, F f) {
    try {
      return f();
    } catch (const Error& error) {
      if (error.code() == ErrorCode::internal || located_) throw;
      refuse_at(position, error.what());
    }
  }

  // Guards recursion: Nested guard(scanner).
  struct Nested {
    explicit Nested(Scanner& s) : scanner(s) {
      if (++scanner.depth_ > kMaxTextDepth) scanner.refuse_at(scanner.at_, "nested too deeply");
    }
    ~Nested() { --scanner.depth_; }
    Scanner& scanner;
  };

 private:
  std::string_view text_;
  std::size_t at_ = 0;
  int depth_ = 0;
  bool located_ = false;  // an error with line and column is on its way
};

bool is_bare_name(std::string_view name);   // of values
bool is_plain_word(std::string_view word);  // letters, digits, '_'; starts with no digit
std::string quote(std::string_view text);
// Quoted only where needed.
std::string value_name(std::string_view name);
std::string plain_name(std::string_view name);

}  // namespace tandem
