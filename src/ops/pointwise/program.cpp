#include "ops/pointwise/program.h"

#include <algorithm>
#include <charconv>
#include <cmath>

#include "core/check.h"

namespace tandem::pointwise {
namespace {

enum class Kind : std::uint8_t { floats, numbers, test, compare, logic, where, cast };

struct Info {
  std::string_view name;
  int arity;
  Kind kind;
};

constexpr Info kFunctions[] = {
#define TANDEM_FUNCTION(name, arguments, kind) {#name, arguments, Kind::kind},
#include "ops/pointwise/functions.def"
};

const Info& info(Function function) { return kFunctions[static_cast<std::size_t>(function)]; }

std::optional<Function> find_function(std::string_view name) {
  for (std::size_t i = 0; i < std::size(kFunctions); ++i)
    if (kFunctions[i].name == name) return static_cast<Function>(i);
  return std::nullopt;
}

std::vector<std::string_view> split(std::string_view text, char separator) {
  std::vector<std::string_view> parts;
  for (std::size_t at = 0; at <= text.size();) {
    const std::size_t end = std::min(text.find(separator, at), text.size());
    parts.push_back(text.substr(at, end - at));
    at = end + 1;
  }
  return parts;
}

Argument parse_argument(std::string_view word, std::size_t statement) {
  const char* end = word.data() + word.size();
  if (word.size() > 1 && (word[0] == 'a' || word[0] == 't')) {
    int index = 0;
    const auto [stop, error] = std::from_chars(word.data() + 1, end, index);
    const bool earlier = word[0] == 'a' || static_cast<std::size_t>(index) < statement;
    if (error == std::errc() && stop == end && index >= 0 && earlier)
      return {word[0] == 'a' ? Argument::Kind::operand : Argument::Kind::temporary, index, 0};
  } else {
    double number = 0;
    const auto [stop, error] = std::from_chars(word.data(), end, number);
    if (error == std::errc() && stop == end) return Argument::literal(number);
  }
  fail(ErrorCode::invalid_model, "statement {}: '{}' is no operand a<i>, earlier t<i> or number", statement, word);
}

Statement parse_statement(std::string_view text, std::size_t index) {
  const std::size_t open = text.find('(');
  const auto function = find_function(text.substr(0, open));
  if (open == std::string_view::npos || !text.ends_with(')') || !function)
    fail(ErrorCode::invalid_model, "statement {}: '{}' is no call of a known function", index, text);
  Statement statement{.function = *function};
  auto words = split(text.substr(open + 1, text.size() - open - 2), ',');
  const auto expected = static_cast<std::size_t>(arity(*function)) + (*function == Function::Cast ? 1 : 0);
  if (words.size() != expected) fail(ErrorCode::invalid_model, "statement {}: {} arguments, expected {}", index, words.size(), expected);
  if (*function == Function::Cast) {
    statement.to = parse_dtype(words.back());
    words.pop_back();
  }
  for (const std::string_view word : words) statement.arguments.push_back(parse_argument(word, index));
  return statement;
}

std::string to_text(const Argument& a) {
  if (a.kind == Argument::Kind::number) return fmt::format("{}", a.number);
  return fmt::format("{}{}", a.kind == Argument::Kind::operand ? 'a' : 't', a.index);
}

bool fits(Kind kind, DType type) {
  switch (kind) {
    case Kind::floats:
    case Kind::test: return is_float(type);
    case Kind::numbers: return is_float(type) || is_integer(type);
    case Kind::logic: return type == DType::boolean;
    case Kind::compare:
    case Kind::where:
    case Kind::cast: return true;
  }
  return false;
}

}  // namespace

std::string_view to_string(Function function) { return info(function).name; }
int arity(Function function) { return info(function).arity; }

Program Program::parse(std::string_view text) {
  Program program;
  const auto lines = split(text, ';');
  for (std::size_t i = 0; i < lines.size(); ++i) {
    std::string_view line = lines[i];
    if (i + 1 < lines.size()) {
      const std::string name = fmt::format("t{}=", i);
      if (!line.starts_with(name)) fail(ErrorCode::invalid_model, "statement {} is '{}', expected it to start with {}", i, line, name);
      line.remove_prefix(name.size());
    }
    program.statements.push_back(parse_statement(line, i));
  }
  return program;
}

std::string Program::to_string() const {
  std::string text;
  for (std::size_t i = 0; i < statements.size(); ++i) {
    const Statement& s = statements[i];
    if (i + 1 < statements.size()) text += fmt::format("t{}=", i);
    text += fmt::format("{}(", pointwise::to_string(s.function));
    for (std::size_t j = 0; j < s.arguments.size(); ++j) text += (j ? "," : "") + to_text(s.arguments[j]);
    if (s.function == Function::Cast) text += fmt::format(",{}", tandem::to_string(s.to));
    text += i + 1 < statements.size() ? ");" : ")";
  }
  return text;
}

int Program::operand_count() const {
  int count = 0;
  for (const Statement& s : statements)
    for (const Argument& a : s.arguments)
      if (a.kind == Argument::Kind::operand) count = std::max(count, a.index + 1);
  return count;
}

DType Program::number_type(std::size_t statement, std::span<const DType> operands, std::span<const DType> types) const {
  const Statement& s = statements[statement];
  const std::size_t first = s.function == Function::Where ? 1 : 0;  // the condition says nothing about the values
  for (std::size_t i = first; i < s.arguments.size(); ++i) {
    const Argument& a = s.arguments[i];
    if (a.kind == Argument::Kind::operand) return operands[static_cast<std::size_t>(a.index)];
    if (a.kind == Argument::Kind::temporary) return types[static_cast<std::size_t>(a.index)];
  }
  fail(ErrorCode::invalid_model, "statement {} has numbers only", statement);
}

std::vector<DType> Program::types(std::span<const DType> operands) const {
  if (static_cast<int>(operands.size()) < operand_count())
    fail(ErrorCode::invalid_model, "the program reads {} operands, there are {}", operand_count(), operands.size());
  std::vector<DType> types;
  for (std::size_t i = 0; i < statements.size(); ++i) {
    const Statement& s = statements[i];
    const Kind kind = info(s.function).kind;
    const DType value = number_type(i, operands, types);
    for (std::size_t j = 0; j < s.arguments.size(); ++j) {
      const Argument& a = s.arguments[j];
      DType have = value;
      if (a.kind == Argument::Kind::operand) have = operands[static_cast<std::size_t>(a.index)];
      if (a.kind == Argument::Kind::temporary) have = types[static_cast<std::size_t>(a.index)];
      const DType want = kind == Kind::where && j == 0 ? DType::boolean : value;
      const bool whole = a.kind != Argument::Kind::number || is_float(have) || std::trunc(a.number) == a.number;
      if (have != want || !whole || (want == value && !fits(kind, have)) ||
          (kind == Kind::where && j == 0 && a.kind == Argument::Kind::number))
        fail(ErrorCode::invalid_model, "statement {}: {} cannot take {} as argument {}", i, pointwise::to_string(s.function),
             tandem::to_string(have), j);
    }
    const bool boolean = kind == Kind::test || kind == Kind::compare || kind == Kind::logic;
    types.push_back(boolean ? DType::boolean : kind == Kind::cast ? s.to : value);
  }
  return types;
}

std::optional<Statement> statement_for(std::string_view op, const Attributes& attributes) {
  const auto named = find_function(op);
  if (!named || op == "FMod" || op == "GeluTanh") return std::nullopt;
  Statement s{.function = *named};
  std::vector<double> numbers;
  switch (*named) {
    case Function::Cast: s.to = attributes.get<DType>("to"); break;
    case Function::Gelu:
      if (attributes.text("approximate") == "tanh") s.function = Function::GeluTanh;
      break;
    case Function::Mod:
      if (attributes.boolean("fmod")) s.function = Function::FMod;
      break;
    case Function::IsInf:
      if (!attributes.boolean("negative") || !attributes.boolean("positive")) return std::nullopt;
      break;
    case Function::Elu:
    case Function::LeakyRelu: numbers = {attributes.real("alpha")}; break;
    case Function::HardSigmoid: numbers = {attributes.real("alpha"), attributes.real("beta")}; break;
    default: break;
  }
  const int operands = arity(s.function) - static_cast<int>(numbers.size());
  for (int i = 0; i < operands; ++i) s.arguments.push_back(Argument::operand(i));
  for (const double number : numbers) s.arguments.push_back(Argument::literal(number));
  return s;
}

}  // namespace tandem::pointwise
