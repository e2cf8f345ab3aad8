#include "runtime/symbols.h"

#include <algorithm>

#include "core/check.h"

namespace tandem {
namespace {

void bind_plain(const Binding& input, const Shape& shape, SymbolValues& symbols) {
  if (shape.size() != input.type.dims.size())
    fail(ErrorCode::invalid_argument, "input '{}' has shape {}, expected {}", input.name, to_string(shape), input.type.to_string());
  for (std::size_t i = 0; i < shape.size(); ++i) {
    if (shape[i] < 0) fail(ErrorCode::invalid_argument, "input '{}' has a negative extent in {}", input.name, to_string(shape));
    if (!input.type.dims[i].is_symbol()) continue;
    const auto [at, fresh] = symbols.try_emplace(input.type.dims[i].to_string(), shape[i]);
    if (!fresh && at->second != shape[i])
      fail(ErrorCode::invalid_argument, "input '{}' has {} = {} in dimension {}, but another input has {}", input.name, at->first, shape[i], i,
           at->second);
  }
}

void check_expressions(const Binding& input, const Shape& shape, const SymbolValues& symbols) {
  for (std::size_t i = 0; i < shape.size(); ++i) {
    const std::int64_t expected = input.type.dims[i].evaluate(symbols);
    if (expected != shape[i])
      fail(ErrorCode::invalid_argument, "input '{}' has extent {} in dimension {}, expected {}{}", input.name, shape[i], i, expected,
           input.type.dims[i].is_constant() ? "" : " = " + input.type.dims[i].to_string());
  }
}

// Names the first symbol outside the profile; empty if all lie inside.
std::string outside(const Profile& profile, const SymbolValues& symbols) {
  for (const auto& [name, range] : profile)
    if (const auto found = symbols.find(name); found != symbols.end() && (found->second < range.min || found->second > range.max))
      return fmt::format("{} = {} is outside {} … {}", name, found->second, range.min, range.max);
  return {};
}

}  // namespace

SymbolValues bind_symbols(const Program& program, const std::vector<Shape>& shapes) {
  check(shapes.size() == program.inputs.size(), "a shape per input");
  SymbolValues symbols;
  for (std::size_t i = 0; i < shapes.size(); ++i) bind_plain(program.inputs[i], shapes[i], symbols);
  for (std::size_t i = 0; i < shapes.size(); ++i) check_expressions(program.inputs[i], shapes[i], symbols);
  for (const Constraint& c : program.constraints) {
    const std::int64_t left = c.left.evaluate(symbols), right = c.right.evaluate(symbols);
    if (left != right)
      throw Error(ErrorCode::invalid_argument,
                  fmt::format("these input shapes give {} = {} where {} = {} is needed", c.left.to_string(), left, c.right.to_string(), right), c.where);
  }
  std::string why;
  for (const Profile& profile : program.profiles) {
    const std::string reason = outside(profile, symbols);
    if (reason.empty()) return symbols;
    if (why.empty()) why = reason;
  }
  if (!why.empty()) fail(ErrorCode::invalid_argument, "these input shapes fit no profile: {}", why);
  return symbols;
}

SymbolValues largest_symbols(const Program& program, std::size_t profile) {
  if (profile >= std::max<std::size_t>(1, program.profiles.size()))
    fail(ErrorCode::invalid_argument, "there is no profile {} of {}", profile, std::max<std::size_t>(1, program.profiles.size()));
  SymbolValues symbols;
  if (program.profiles.empty()) return symbols;
  for (const auto& [name, range] : program.profiles[profile]) symbols[name] = range.max;
  for (const Constraint& c : program.constraints) {
    const std::int64_t left = c.left.evaluate(symbols), right = c.right.evaluate(symbols);
    if (left > right && c.left.is_symbol()) symbols[c.left.to_string()] = right;
    if (right > left && c.right.is_symbol()) symbols[c.right.to_string()] = left;
  }
  for (const Constraint& c : program.constraints)
    if (const std::int64_t left = c.left.evaluate(symbols), right = c.right.evaluate(symbols); left != right)
      throw Error(ErrorCode::invalid_argument,
                  fmt::format("the largest values of profile {} do not go together: {} = {}, but {} = {}", profile, c.left.to_string(), left, c.right.to_string(), right),
                  c.where);
  return symbols;
}

Shape bound_dims(const std::vector<Dim>& dims, const SymbolValues& symbols) {
  Shape shape;
  for (const Dim& dim : dims) shape.push_back(dim.evaluate(symbols));
  return shape;
}

}  // namespace tandem
