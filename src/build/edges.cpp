#include "build/edges.h"

#include "core/check.h"
#include "ops/kernel.h"
#include "ops/ops.h"
#include "plan/step_call.h"

namespace tandem {
namespace {

const PlanValue& root_value(const Program& program, int value) {
  const PlanValue* at = &program.values[static_cast<std::size_t>(value)];
  while (at->alias_of >= 0) at = &program.values[static_cast<std::size_t>(at->alias_of)];
  return *at;
}

std::vector<int> residents(const Program& program, const Step& step, const KernelDef& kernel) {
  std::vector<int> found;
  if (!kernel.reads_early) return found;
  const OpDef* op = all_ops().find(step.op);
  check(op != nullptr, "a step has an op");
  const OpCall call = call_of(program, step, *op);
  for (std::size_t i = 0; i < step.operands.size(); ++i)
    if (step.operands[i] >= 0 && root_value(program, step.operands[i]).kind == PlanValue::Kind::weight && kernel.reads_early(call, i))
      found.push_back(static_cast<int>(i));
  return found;
}

}  // namespace

void find_edges(Program& program) {
  bool before = false;  // the kernel of the step before keeps to the rules
  for (Step& step : program.steps) {
    const KernelDef& kernel = *find_kernel(step.kernel);
    step.starts_early = before && kernel.dependent;
    step.resident = step.starts_early ? residents(program, step, kernel) : std::vector<int>();
    before = kernel.dependent;
  }
}

}  // namespace tandem
