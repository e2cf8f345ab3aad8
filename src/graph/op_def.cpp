#include "graph/op_def.h"

#include <map>
#include <sstream>

#include "core/check.h"

namespace tandem {
namespace {

AttributeValue bound_value(const AttributeValue& value, const SymbolValues& symbols) {
  if (const auto* dim = std::get_if<Dim>(&value)) return Dim(dim->evaluate(symbols));
  if (const auto* dims = std::get_if<std::vector<Dim>>(&value)) {
    std::vector<Dim> out;
    for (const Dim& d : *dims) out.push_back(d.evaluate(symbols));
    return out;
  }
  return value;
}

Type bound_type(const Type& type, const SymbolValues& symbols) {
  Type out{type.dtype, {}};
  for (const Dim& d : type.dims) out.dims.push_back(d.evaluate(symbols));
  return out;
}

}  // namespace

const Type& OpCall::operand(std::size_t i) const {
  check(has_operand(i), fmt::format("{} has no operand {}", op ? op->name : "?", i));
  return *operands[i];
}

OpCall OpCall::bound(const SymbolValues& values) const {
  OpCall out{op, attributes, {}, {}};
  for (AttributeValue& v : out.attributes.values()) v = bound_value(v, values);
  for (const auto& t : operands) out.operands.push_back(t ? std::optional(bound_type(*t, values)) : std::nullopt);
  for (const Type& t : results) out.results.push_back(bound_type(t, values));
  return out;
}

int ShardingRule::add(Dim size, Role role, Reduction reduction) {
  factors.push_back({std::move(size), role, reduction});
  return static_cast<int>(factors.size()) - 1;
}

namespace {

struct Formula {
  std::vector<std::vector<std::string>> operands, results;
};

std::vector<std::vector<std::string>> parse_side(const std::string& text) {
  std::vector<std::vector<std::string>> side;
  std::stringstream parts(text);
  for (std::string part; std::getline(parts, part, ',');) {
    std::stringstream words(part);
    side.emplace_back();
    for (std::string word; words >> word;) side.back().push_back(word);
  }
  return side;
}

Formula parse_formula(std::string_view formula) {
  const std::size_t arrow = formula.find("->");
  check(arrow != std::string_view::npos, "a sharding formula needs an arrow");
  return {parse_side(std::string(formula.substr(0, arrow))), parse_side(std::string(formula.substr(arrow + 2)))};
}

// Gives each dimension of one operand or result its word; "..." stands for leading dimensions counted from the right.
std::vector<std::string> words_of(const std::vector<std::string>& words, int rank) {
  std::vector<std::string> out;
  for (std::size_t i = 0; i < words.size(); ++i) {
    if (words[i] != "...") {
      out.push_back(words[i]);
      continue;
    }
    const int leading = rank - static_cast<int>(words.size()) + 1;
    for (int j = 0; j < leading; ++j) out.push_back("." + std::to_string(leading - j));
  }
  return out;
}

}  // namespace

ShardingRule rule_from_formula(std::string_view text, const OpCall& call) {
  const Formula formula = parse_formula(text);
  ShardingRule rule;
  std::map<std::string, int> factor_of;
  std::map<std::string, bool> in_result;
  for (const auto& words : formula.results)
    for (const std::string& w : words) in_result[w.substr(0, w.find('!'))] = true;
  const auto factors = [&](const Type& type, const std::vector<std::string>& words) {
    const std::vector<std::string> names = words_of(words, type.rank());
    std::vector<ShardingRule::DimFactors> dims;
    for (std::size_t i = 0; i < type.dims.size(); ++i) {
      dims.emplace_back();
      if (i >= names.size()) continue;
      const std::string word = names[i].substr(0, names[i].find('!'));
      const bool leading = word[0] == '.';
      if (type.dims[i] == Dim(1) && leading) continue;  // broadcast
      const auto found = factor_of.find(word);
      if (found != factor_of.end()) {
        dims.back() = {found->second};
        continue;
      }
      using Role = ShardingRule::Role;
      const Role role = names[i].back() == '!' ? Role::whole : leading || in_result[word] ? Role::parallel : Role::contract;
      dims.back() = {factor_of[word] = rule.add(type.dims[i], role)};
    }
    return dims;
  };
  for (std::size_t i = 0; i < call.operands.size(); ++i) {
    if (!call.has_operand(i) || i >= formula.operands.size()) {
      rule.operands.emplace_back();
      if (call.has_operand(i)) rule.operands.back().resize(call.operand(i).dims.size());
    } else {
      rule.operands.push_back(factors(call.operand(i), formula.operands[i]));
    }
  }
  for (std::size_t i = 0; i < call.results.size(); ++i)
    rule.results.push_back(factors(call.results[i], formula.results.at(std::min(i, formula.results.size() - 1))));
  return rule;
}

ShardingRule pointwise_rule(const OpCall& call) {
  ShardingRule rule;
  const Type& result = call.results.at(0);
  rule.results.resize(call.results.size());
  for (std::size_t i = 0; i < result.dims.size(); ++i) {
    const int factor = rule.add(result.dims[i]);
    for (auto& r : rule.results) r.push_back({factor});
  }
  for (std::size_t i = 0; i < call.operands.size(); ++i) {
    rule.operands.emplace_back();
    if (!call.has_operand(i)) continue;
    const Type& type = call.operand(i);
    const int shift = result.rank() - type.rank();
    for (int j = 0; j < type.rank(); ++j) {
      const bool broadcast = type.dims[static_cast<std::size_t>(j)] == Dim(1) && result.dims[static_cast<std::size_t>(j + shift)] != Dim(1);
      rule.operands.back().push_back(broadcast ? ShardingRule::DimFactors{} : ShardingRule::DimFactors{j + shift});
    }
  }
  return rule;
}

ShardingRule whole_rule(const OpCall& call) {
  ShardingRule rule;
  const auto whole = [&](const Type& type) {
    std::vector<ShardingRule::DimFactors> dims;
    for (const Dim& d : type.dims) dims.push_back({rule.add(d, ShardingRule::Role::whole)});
    return dims;
  };
  for (const auto& t : call.operands) rule.operands.push_back(t ? whole(*t) : std::vector<ShardingRule::DimFactors>{});
  for (const Type& t : call.results) rule.results.push_back(whole(t));
  return rule;
}

OpSet::OpSet(std::vector<const OpDef*> ops) : ops_(std::move(ops)) {}

const OpDef* OpSet::find(std::string_view name) const {
  for (const OpDef* op : ops_)
    if (op->name == name) return op;
  return nullptr;
}

}  // namespace tandem
