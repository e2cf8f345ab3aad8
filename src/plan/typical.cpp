#include "plan/typical.h"

#include <set>

namespace tandem {

SymbolValues typical_symbols(const Program& program) {
  std::set<std::string> names;
  for (const Binding& input : program.inputs)
    for (const Dim& dim : input.type.dims) dim.collect_symbols(names);
  SymbolValues symbols;
  for (const std::string& name : names) {
    symbols[name] = 1;
    if (program.profiles.empty()) continue;
    if (const auto found = program.profiles[0].find(name); found != program.profiles[0].end()) symbols[name] = found->second.opt;
  }
  return symbols;
}

}  // namespace tandem
