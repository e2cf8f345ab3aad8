#include "runtime/symbols.h"

#include <algorithm>

#include "core/check.h"
#include "plan/measured.h"

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
      fail(ErrorCode::invalid_argument, "input '{}' has {} = {} in dimension {}, but another input has {}", input.name, at->first, shape[i],
           i, at->second);
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

// Where a symbol comes from: "input 'x', dimension 0: "; nothing where no dimension is just that symbol.
std::string place_of(const Program& program, const std::string& symbol) {
  for (const Binding& input : program.inputs)
    for (std::size_t d = 0; d < input.type.dims.size(); ++d)
      if (input.type.dims[d].is_symbol() && input.type.dims[d].to_string() == symbol)
        return fmt::format("input '{}', dimension {}: ", input.name, d);
  return {};
}

// Names the first symbol outside the profile; empty if all lie inside.
std::string outside(const Program& program, const Profile& profile, const SymbolValues& symbols) {
  for (const auto& [name, range] : profile)
    if (const auto found = symbols.find(name); found != symbols.end() && (found->second < range.min || found->second > range.max))
      return fmt::format("{}{} = {} is outside {} … {}", place_of(program, name), name, found->second, range.min, range.max);
  return {};
}

}  // namespace

SymbolValues bind_symbols(const Program& program, const std::vector<Shape>& shapes) {
  check(shapes.size() == program.inputs.size(), "a shape per input");
  SymbolValues symbols;
  for (std::size_t i = 0; i < shapes.size(); ++i) bind_plain(program.inputs[i], shapes[i], symbols);
  for (std::size_t i = 0; i < shapes.size(); ++i) check_expressions(program.inputs[i], shapes[i], symbols);
  check_constraints(program, symbols);
  bind_to_bounds(measured_of(program), symbols);
  return symbols;
}

void check_constraints(const Program& program, const SymbolValues& symbols, const std::string& measured) {
  const MeasuredList list = program.constraints.empty() ? MeasuredList() : measured_of(program);
  for (const Constraint& c : program.constraints) {
    std::set<std::string> held;
    c.left.collect_symbols(held);
    c.right.collect_symbols(held);
    const auto waits = [&](const Measured& m) { return held.contains(m.symbol) && !symbols.contains(m.symbol); };
    if ((!measured.empty() && !held.contains(measured)) || std::ranges::any_of(list, waits)) continue;
    const std::int64_t left = c.left.evaluate(symbols), right = c.right.evaluate(symbols);
    if (left != right)
      throw Error(ErrorCode::invalid_argument,
                  fmt::format("these {} give {} = {} where {} = {} is needed", measured.empty() ? "input shapes" : "inputs",
                              c.left.to_string(), left, c.right.to_string(), right),
                  c.where);
  }
}

std::string misfit(const Program& program, const SymbolValues& symbols) {
  std::string why;
  for (const Profile& profile : program.profiles) {
    const std::string reason = outside(program, profile, symbols);
    if (reason.empty()) return {};
    if (why.empty()) why = reason;
  }
  return why;
}

double distance(const Program& program, const SymbolValues& symbols) {
  double factor = 1;
  if (program.profiles.empty()) return factor;
  for (const auto& [name, range] : program.profiles[0])
    if (const auto found = symbols.find(name); found != symbols.end()) {
      const auto [low, high] = std::minmax(range.opt, found->second);
      factor *= (static_cast<double>(high) + 1) / (static_cast<double>(low) + 1);  // 0 is an extent too
    }
  return factor;
}

std::size_t fitting_profile(const Plan& plan, const SymbolValues& symbols, int wanted) {
  std::vector<std::string> reasons;
  std::size_t fits = plan.profiles();
  double nearest = 0;
  for (std::size_t p = 0; p < plan.profiles(); ++p) {
    reasons.push_back(misfit(plan.programs[p], symbols));
    const double far = distance(plan.programs[p], symbols);
    if (!reasons[p].empty() || (fits < p && nearest <= far)) continue;
    fits = p;
    nearest = far;
  }
  if (wanted >= 0 && reasons.at(static_cast<std::size_t>(wanted)).empty()) return static_cast<std::size_t>(wanted);
  if (wanted < 0 && fits < reasons.size()) return fits;
  if (reasons.size() == 1) fail(ErrorCode::invalid_argument, "these input shapes fit no profile: {}", reasons[0]);
  if (wanted >= 0)
    fail(ErrorCode::invalid_argument, "these input shapes do not fit optimization profile {}: {}; {} would", wanted,
         reasons[static_cast<std::size_t>(wanted)], fits < reasons.size() ? fmt::format("profile {}", fits) : "no other");
  std::string all;
  for (std::size_t p = 0; p < reasons.size(); ++p) all += fmt::format("{}profile {}: {}", p == 0 ? "" : "; ", p, reasons[p]);
  fail(ErrorCode::invalid_argument, "these input shapes fit no optimization profile ({})", all);
}

void check_profile(const Plan& plan, std::int64_t profile, bool automatic) {
  if (automatic && profile == -1) return;
  if (profile < 0 || static_cast<std::size_t>(profile) >= plan.profiles())
    fail(ErrorCode::invalid_argument, "there is no optimization profile {}, the engine has {}{}", profile, plan.profiles(),
         plan.profiles() == 1 ? ": 0" : fmt::format(", 0 to {}", plan.profiles() - 1));
}

SymbolValues largest_symbols(const Plan& plan, std::size_t profile) {
  check_profile(plan, static_cast<std::int64_t>(profile));
  const Program& program = plan.programs[profile];
  SymbolValues symbols;
  if (program.profiles.empty()) return symbols;
  for (const auto& [name, range] : program.profiles[0]) symbols[name] = range.max;
  const MeasuredList measured = measured_of(program);
  std::vector<Constraint> constraints;  // of inputs alone
  std::ranges::copy_if(program.constraints, std::back_inserter(constraints), [&](const Constraint& c) {
    return !is_measured(measured, {c.left, c.right});
  });
  for (const Constraint& c : constraints) {
    const std::int64_t left = c.left.evaluate(symbols), right = c.right.evaluate(symbols);
    if (left > right && c.left.is_symbol()) symbols[c.left.to_string()] = right;
    if (right > left && c.right.is_symbol()) symbols[c.right.to_string()] = left;
  }
  for (const Constraint& c : constraints)
    if (const std::int64_t left = c.left.evaluate(symbols), right = c.right.evaluate(symbols); left != right)
      throw Error(ErrorCode::invalid_argument,
                  fmt::format("the largest values of profile {} do not go together: {} = {}, but {} = {}", profile, c.left.to_string(),
                              left, c.right.to_string(), right),
                  c.where);
  bind_to_bounds(measured_of(program), symbols);
  return symbols;
}

Shape bound_dims(const std::vector<Dim>& dims, const SymbolValues& symbols) {
  Shape shape;
  for (const Dim& dim : dims) shape.push_back(dim.evaluate(symbols));
  return shape;
}

}  // namespace tandem
