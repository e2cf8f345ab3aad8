#include "fuzz/mutate.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <cstring>

namespace tandem::fuzz {
namespace {

constexpr std::size_t kLongest = 1 << 20;
constexpr std::array<std::int64_t, 14> kEdges = {
    0, 1, -1, 2, 7, 64, 127, 255, 65536, INT32_MAX, INT32_MIN, std::int64_t{1} << 40, INT64_MAX, INT64_MIN};

bool in_word(char c) { return std::isalnum(static_cast<unsigned char>(c)) || c == '_' || c == '.' || c == '@' || c == '%'; }

// The word or number around or after `at`: begin and end.
template <typename Belongs>
std::pair<std::size_t, std::size_t> run_at(const std::string& s, std::size_t at, Belongs belongs) {
  while (at < s.size() && !belongs(s[at])) ++at;
  std::size_t begin = at, end = at;
  while (begin > 0 && belongs(s[begin - 1])) --begin;
  while (end < s.size() && belongs(s[end])) ++end;
  return {begin, end};
}

}  // namespace

std::string Mutator::changed(std::string input, const std::string& other) {
  const std::size_t changes = 1 + below(5);
  for (std::size_t i = 0; i < changes; ++i) change(input, other);
  if (input.size() > kLongest) input.resize(kLongest);
  return input;
}

void Mutator::change_number(std::string& s) {
  const auto [begin, end] = run_at(s, below(s.size()), [](char c) { return std::isdigit(static_cast<unsigned char>(c)) != 0; });
  const std::int64_t edge = kEdges[below(kEdges.size())];
  s.replace(begin, end - begin, std::to_string(below(2) ? edge : static_cast<std::int64_t>(below(20)) - 2));
}

void Mutator::swap_words(std::string& s, const std::string& other) {
  const auto [begin, end] = run_at(s, below(s.size()), in_word);
  const auto [from, to] = run_at(other, below(other.size()), in_word);
  s.replace(begin, end - begin, other, from, std::min<std::size_t>(to - from, 64));
}

// Keeps the lengths that binary formats write before their strings.
void Mutator::overwrite_word(std::string& s, const std::string& other) {
  const auto [begin, end] = run_at(s, below(s.size()), in_word);
  for (int i = 0; i < 30; ++i) {
    const auto [from, to] = run_at(other, below(other.size()), in_word);
    if (to - from == end - begin) return void(s.replace(begin, end - begin, other, from, to - from));
  }
}

void Mutator::change(std::string& s, const std::string& other) {
  const std::size_t at = below(s.size()), length = 1 + below(below(4) ? 8 : s.size() / 2 + 1);
  switch (below(13)) {
    case 0:
      if (!s.empty()) s[at] = static_cast<char>(s[at] ^ (1 << below(8)));
      break;
    case 1:
      if (!s.empty()) s[at] = static_cast<char>(random_());
      break;
    case 2: s.erase(at, length); break;
    case 3: s.insert(at, std::string(1 + below(4), static_cast<char>(random_()))); break;
    case 4: s.insert(below(s.size() + 1), s.substr(at, length)); break;
    case 5:
      if (!other.empty()) s.insert(at, other, below(other.size()), length);
      break;
    case 6:
      if (!other.empty()) s.replace(at, length, other, below(other.size()), length);
      break;
    case 7: {  // a binary number
      const std::int64_t edge = kEdges[below(kEdges.size())];
      const std::size_t width = std::size_t{1} << below(4);
      if (at + width <= s.size()) std::memcpy(&s[at], &edge, width);
      break;
    }
    case 8: change_number(s); break;
    case 9: swap_words(s, below(2) ? other : std::string(s)); break;
    case 10:
    case 11: overwrite_word(s, below(2) ? other : std::string(s)); break;
    default:
      if (below(20) == 0) s.resize(at);
      else change_number(s);
  }
}

}  // namespace tandem::fuzz
