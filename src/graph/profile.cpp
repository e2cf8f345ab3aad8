#include "graph/profile.h"

#include <algorithm>

#include "core/check.h"

namespace tandem {

// Caches start empty, and a total is past and new together: exporters name these extents so, and often tie them by nothing else.
SymbolRange default_range(const std::string& symbol) {
  if (symbol.find("past") != std::string::npos) return {.min = 0, .opt = 8, .max = 65536};
  if (symbol.find("total") != std::string::npos) return {.min = 1, .opt = 16, .max = 131072};
  return {.min = 1, .opt = 8, .max = 65536};
}

namespace {

void check_range(const SymbolRange& r, const std::string& input, std::size_t index) {
  if (r.min < 0 || r.min > r.opt || r.opt > r.max)
    fail(ErrorCode::invalid_argument, "input '{}', dimension {}: range {}:{}:{} is not ordered min:opt:max", input, index, r.min, r.opt,
         r.max);
}

// One input's ranges: symbols take them, numbers must agree.
void apply(Profile& profile, const std::string& input, const Type& type, const std::vector<SymbolRange>& ranges) {
  if (ranges.size() != type.dims.size())
    fail(ErrorCode::invalid_argument, "input '{}' has {} dimensions, but the shape given has {}", input, type.dims.size(), ranges.size());
  for (std::size_t i = 0; i < ranges.size(); ++i) {
    const Dim& dim = type.dims[i];
    check_range(ranges[i], input, i);
    if (dim.is_constant() && (ranges[i].min != dim.constant() || ranges[i].max != dim.constant()))
      fail(ErrorCode::invalid_argument, "input '{}', dimension {} is {}, but {}:{}:{} is given", input, i, dim.constant(), ranges[i].min,
           ranges[i].opt, ranges[i].max);
    if (!dim.is_symbol()) continue;
    const auto [at, fresh] = profile.try_emplace(dim.to_string(), ranges[i]);
    if (!fresh && at->second != ranges[i])
      fail(ErrorCode::invalid_argument, "input '{}', dimension {}: '{}' has another range in another place", input, i, dim.to_string());
  }
}

}  // namespace

Profile profile_of(const NamedTypes& inputs, const InputRanges& given) {
  Profile profile;
  for (const auto& [name, ranges] : given) {
    const auto found = std::ranges::find(inputs, name, [](const auto& i) { return i.first; });
    if (found == inputs.end()) fail(ErrorCode::invalid_argument, "a shape is given for '{}', which is no input of the model", name);
    apply(profile, name, found->second, ranges);
  }
  for (const auto& [name, type] : inputs)
    for (const Dim& dim : type.dims) {
      std::set<std::string> symbols;
      dim.collect_symbols(symbols);
      for (const std::string& s : symbols) profile.try_emplace(s, default_range(s));
    }
  return profile;
}

std::vector<Profile> profiles_of(const NamedTypes& inputs, const std::vector<InputRanges>& given) {
  std::vector<Profile> profiles;
  for (const InputRanges& ranges : given) try {
      profiles.push_back(profile_of(inputs, ranges));
    } catch (const Error& error) {
      if (given.size() == 1) throw;
      throw Error(error.code(), fmt::format("optimization profile {}: {}", profiles.size(), error.message()));
    }
  return profiles;
}

namespace {

SymbolValues corner(const Profile& profile, std::int64_t SymbolRange::*end) {
  SymbolValues values;
  for (const auto& [name, range] : profile) values[name] = range.*end;
  return values;
}

bool holds(const Constraint& c, const SymbolValues& values) {
  try {
    return c.left.evaluate(values) == c.right.evaluate(values);
  } catch (const Error&) {
    return false;
  }
}

// total = past + new: a symbol that stands alone on one side takes the range of the other side.
void follow(Profile& profile, std::set<std::string>& open, const Dim& alone, const Dim& other) {
  if (!alone.is_symbol() || other.is_constant() || !open.contains(alone.to_string())) return;
  std::set<std::string> symbols;
  other.collect_symbols(symbols);
  if (symbols.contains(alone.to_string()) || !std::ranges::all_of(symbols, [&](const std::string& s) { return profile.contains(s); }))
    return;
  try {
    const SymbolRange range{other.evaluate(corner(profile, &SymbolRange::min)), other.evaluate(corner(profile, &SymbolRange::opt)),
                            other.evaluate(corner(profile, &SymbolRange::max))};
    if (range.min < 0 || range.min > range.opt || range.opt > range.max) return;
    profile[alone.to_string()] = range;
    open.erase(alone.to_string());
  } catch (const Error&) {
    return;  // an expression without a value at some corner says nothing
  }
}

// The largest maximum with which, all other symbols at their minimum, the constraints still hold.
void lower(SymbolRange& range, const std::string& symbol, SymbolValues values, const std::vector<Constraint>& constraints) {
  std::int64_t low = range.min, high = range.max;
  const auto good = [&](std::int64_t value) {
    values[symbol] = value;
    return std::ranges::all_of(constraints, [&](const Constraint& c) { return holds(c, values); });
  };
  while (low < high) {
    const std::int64_t middle = low + (high - low + 1) / 2;
    if (good(middle)) low = middle;
    else high = middle - 1;
  }
  range.max = low;
  range.opt = std::min(range.opt, low);
}

void settle(const Graph& graph, Profile& profile, const InputRanges& given, const std::set<std::string>& decided) {
  std::set<std::string> open;
  for (const auto& [name, range] : profile)
    if (!decided.contains(name)) open.insert(name);
  for (const auto& input : graph.inputs())
    if (given.contains(input->name()))
      for (const Dim& d : input->type.dims)
        if (d.is_symbol()) open.erase(d.to_string());
  const std::set<std::string> defaults = open;
  const SymbolValues lowest = corner(profile, &SymbolRange::min);
  std::vector<Constraint> limits;
  std::ranges::copy_if(graph.constraints, std::back_inserter(limits), [&](const Constraint& c) { return holds(c, lowest); });
  // Ties between symbols first; what is left are limits.
  const auto is_tie = [&](const Constraint& c) {
    return (c.left.is_symbol() && !c.right.is_constant()) || (c.right.is_symbol() && !c.left.is_constant());
  };
  std::vector<Constraint> ties;
  std::ranges::copy_if(graph.constraints, std::back_inserter(ties), is_tie);
  std::erase_if(limits, [&](const Constraint& c) {
    std::set<std::string> left, right;
    c.left.collect_symbols(left);
    c.right.collect_symbols(right);
    return is_tie(c) && left != right;
  });
  for (const std::string& symbol : defaults) lower(profile[symbol], symbol, lowest, limits);
  for (const Constraint& c : ties) {
    follow(profile, open, c.left, c.right);
    follow(profile, open, c.right, c.left);
  }
}

}  // namespace

void settle_defaults(Graph& graph, const std::vector<InputRanges>& given, const std::set<std::string>& decided) {
  check(given.size() == graph.profiles.size(), "ranges per profile");
  for (std::size_t p = 0; p < given.size(); ++p) settle(graph, graph.profiles[p], given[p], decided);
}

}  // namespace tandem
