#include "plan/step_call.h"

#include <algorithm>

namespace tandem {

OpCall call_of(const Program& program, const Step& step, const OpDef& op) {
  const auto type = [&](int value) { return program.values[static_cast<std::size_t>(value)].type; };
  OpCall call{&op, step.attributes, {}, {}};
  for (int v : step.operands) call.operands.push_back(v < 0 ? std::nullopt : std::optional(type(v)));
  for (int v : step.results) call.results.push_back(type(v));
  return call;
}

int place_of_result(const Program& program, const Step& step) {
  const int alias = step.results.empty() ? -1 : program.values[static_cast<std::size_t>(step.results[0])].alias_of;
  const auto found = std::ranges::find(step.operands, alias);
  return alias < 0 || found == step.operands.end() ? -1 : static_cast<int>(found - step.operands.begin());
}

}  // namespace tandem
