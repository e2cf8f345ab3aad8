#include "graph/scanner.h"

#include <algorithm>
#include <charconv>
#include <limits>

namespace tandem {
namespace {

bool is_letter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_'; }
bool is_digit(char c) { return c >= '0' && c <= '9'; }
bool is_bare(char c) { return is_letter(c) || is_digit(c) || c == '.' || c == '/' || c == '-'; }

int hex_digit(char c) {
  if (is_digit(c)) return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

}  // namespace

bool is_bare_name(std::string_view name) { return !name.empty() && std::ranges::all_of(name, is_bare); }

bool is_plain_word(std::string_view word) {
  return !word.empty() && !is_digit(word[0]) && std::ranges::all_of(word, [](char c) { return is_letter(c) || is_digit(c); });
}

std::string quote(std::string_view text) {
  std::string out = "\"";
  for (const char c : text) {
    const auto code = static_cast<unsigned char>(c);
    if (c == '"' || c == '\\') out += {'\\', c};
    else if (c == '\n') out += "\\n";
    else if (c == '\t') out += "\\t";
    else if (code < 0x20 || code == 0x7f) out += fmt::format("\\x{:02x}", code);
    else out += c;
  }
  return out + "\"";
}

std::string value_name(std::string_view name) { return "%" + (is_bare_name(name) ? std::string(name) : quote(name)); }
std::string plain_name(std::string_view name) { return is_plain_word(name) ? std::string(name) : quote(name); }

void Scanner::refuse_at(std::size_t position, std::string_view message) {
  position = std::min(position, text_.size());
  const std::string_view before = text_.substr(0, position);
  const auto line = 1 + std::ranges::count(before, '\n');
  const std::size_t start = before.rfind('\n');
  located_ = true;
  fail(ErrorCode::invalid_model, "{}:{}: {}", line, position - (start == std::string_view::npos ? 0 : start + 1) + 1, message);
}

void Scanner::refuse(std::string_view expected) {
  const char c = peek();
  const std::string_view rest = text_.substr(at_, std::min<std::size_t>(16, text_.substr(at_).find('\n')));
  refuse_at(at_, fmt::format("{} expected, found {}", expected, c == '\0' ? "the end" : quote(rest)));
}

char Scanner::peek() {
  while (at_ < text_.size()) {
    const char c = text_[at_];
    if (c == '#') {
      at_ = std::min(text_.find('\n', at_), text_.size());
    } else if (c == ' ' || c == '\n' || c == '\t' || c == '\r') {
      ++at_;
    } else {
      return c;
    }
  }
  return '\0';
}

bool Scanner::take(char c) {
  if (peek() != c || at_ >= text_.size()) return false;
  ++at_;
  return true;
}

void Scanner::expect(char c) {
  if (!take(c)) refuse(fmt::format("'{}'", c));
}

bool Scanner::take_word(std::string_view word) {
  peek();
  if (text_.substr(at_, word.size()) != word) return false;
  const std::size_t end = at_ + word.size();
  if (end < text_.size() && (is_letter(text_[end]) || is_digit(text_[end]))) return false;
  at_ = end;
  return true;
}

std::string_view Scanner::word(std::string_view expected) {
  if (!is_letter(peek())) refuse(expected);
  const std::size_t begin = at_;
  while (at_ < text_.size() && (is_letter(text_[at_]) || is_digit(text_[at_]))) ++at_;
  return text_.substr(begin, at_ - begin);
}

std::string Scanner::name(std::string_view expected) {
  if (peek() == '"') return quoted(expected);
  const std::size_t begin = at_;
  while (at_ < text_.size() && is_bare(text_[at_])) ++at_;
  if (at_ == begin) refuse(expected);
  return std::string(text_.substr(begin, at_ - begin));
}

std::string Scanner::quoted(std::string_view expected) {
  if (!take('"')) refuse(expected);
  const std::size_t begin = at_ - 1;
  std::string out;
  while (at_ < text_.size() && text_[at_] != '"') {
    char c = text_[at_++];
    if (c == '\\') {
      if (at_ >= text_.size()) break;
      c = text_[at_++];
      if (c == 'n') c = '\n';
      else if (c == 't') c = '\t';
      else if (c == 'x') {
        const int high = at_ < text_.size() ? hex_digit(text_[at_]) : -1, low = at_ + 1 < text_.size() ? hex_digit(text_[at_ + 1]) : -1;
        if (high < 0 || low < 0) refuse_at(at_, "two hexadecimal digits expected");
        c = static_cast<char>(high * 16 + low);
        at_ += 2;
      } else if (c != '"' && c != '\\') {
        refuse_at(at_ - 1, "unknown escape; there are \\n \\t \\xNN \\\" and \\\\");
      }
    }
    out += c;
  }
  if (at_ >= text_.size()) refuse_at(begin, "the string does not end");
  ++at_;
  return out;
}

namespace {

template <typename T>
bool read_number(std::string_view text, std::size_t& at, T& value) {
  const auto [end, error] = std::from_chars(text.data() + at, text.data() + text.size(), value);
  if (error != std::errc{}) return false;
  at = static_cast<std::size_t>(end - text.data());
  return true;
}

}  // namespace

std::int64_t Scanner::integer(std::string_view expected) {
  std::int64_t value = 0;
  peek();
  if (!read_number(text_, at_, value)) refuse(expected);
  return value;
}

std::uint64_t Scanner::unsigned_integer(std::string_view expected) {
  std::uint64_t value = 0;
  peek();
  if (!read_number(text_, at_, value)) refuse(expected);
  return value;
}

template <typename T>
T Scanner::real() {
  if (take_word("nan")) return std::numeric_limits<T>::quiet_NaN();
  if (take_word("inf")) return std::numeric_limits<T>::infinity();
  if (take_word("-inf")) return -std::numeric_limits<T>::infinity();
  T value = 0;
  if (!read_number(text_, at_, value)) refuse("a number");
  return value;
}

template float Scanner::real<float>();
template double Scanner::real<double>();

bool Scanner::take_hex_prefix() {
  peek();
  if (text_.substr(at_, 2) != "0x") return false;
  at_ += 2;
  return true;
}

std::uint64_t Scanner::hex() {
  std::uint64_t value = 0;
  const std::string_view digits = text_.substr(at_, 16);
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), value, 16);
  if (error != std::errc{}) refuse("hexadecimal digits");
  at_ += static_cast<std::size_t>(end - digits.data());
  return value;
}

Dim Scanner::dim() {
  peek();
  const std::size_t begin = at_;
  int open = 0;
  for (; at_ < text_.size(); ++at_) {
    const char c = text_[at_];
    if (c == '(') ++open;
    if (c == ')' && open-- == 0) break;
    if (open <= 0 && (c == ',' || c == ']' || c == '}' || c == '=' || c == '"' || c == '\n')) break;
    if (c == '{' || c == '#' || c == '[' || c == ';') break;
  }
  std::string_view text = text_.substr(begin, at_ - begin);
  while (!text.empty() && (text.back() == ' ' || text.back() == '\r' || text.back() == '\t')) text.remove_suffix(1);
  if (text.empty()) refuse("a dimension");
  return at(begin, [&] { return Dim::parse(text); });
}

}  // namespace tandem
