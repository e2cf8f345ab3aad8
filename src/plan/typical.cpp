#include "plan/typical.h"

#include <set>

#include "graph/measured.h"
#include "plan/measured.h"

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
  SymbolValues symbols = typical(names, program.profiles);
  bind_to_bounds(measured_of(program), symbols);
  return symbols;
}

SymbolValues typical_symbols(const Graph& graph) {
  std::set<std::string> names;
  for (const auto& input : graph.inputs())
    for (const Dim& dim : input->type.dims) dim.collect_symbols(names);
  SymbolValues symbols = typical(names, graph.profiles);
  bind_to_bounds(graph, symbols);
  return symbols;
}

}  // namespace tandem
