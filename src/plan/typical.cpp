#include "plan/typical.h"

#include <set>

namespace tandem {

namespace {

SymbolValues typical(const std::set<std::string>& names, const std::vector<Profile>& profiles) {
  SymbolValues symbols;
  for (const std::string& name : names) {
    symbols[name] = 1;
    if (profiles.empty()) continue;
    if (const auto found = profiles[0].find(name); found != profiles[0].end()) symbols[name] = found->second.opt;
  }
  return symbols;
}

}  // namespace

SymbolValues typical_symbols(const Program& program) {
  std::set<std::string> names;
  for (const Binding& input : program.inputs)
    for (const Dim& dim : input.type.dims) dim.collect_symbols(names);
  return typical(names, program.profiles);
}

SymbolValues typical_symbols(const Graph& graph) {
  std::set<std::string> names;
  for (const auto& input : graph.inputs())
    for (const Dim& dim : input->type.dims) dim.collect_symbols(names);
  return typical(names, graph.profiles);
}

}  // namespace tandem
