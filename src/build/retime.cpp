#include "build/retime.h"

#include <algorithm>

#include "build/code.h"
#include "build/edges.h"
#include "build/step_timer.h"
#include "core/check.h"
#include "ops/ops.h"
#include "plan/measured.h"
#include "plan/step_call.h"

namespace tandem {
namespace {

class Retimer {
 public:
  Retimer(Plan& plan, const PlanOptions& options) : plan_(plan), options_(options), timer_(options, plan.tf32, plan.exact) {}

  int run() {
    std::size_t steps = 0, done = 0;
    for (const Program& program : plan_.programs) steps += program.steps.size();
    int timed = 0;
    for (std::size_t p = 0; p < plan_.programs.size(); ++p) {
      Program& program = plan_.programs[p];
      for (std::size_t s = 0; s < program.steps.size(); ++s) {
        if (options_.progress) options_.progress(done++, steps);
        timed += program.steps[s].microseconds == 0 && time_step(p, s);
      }
      if (options_.dependent_launch) find_edges(program);
    }
    return timed;
  }

 private:
  const CollectiveUse* use_of(std::size_t program, std::size_t step) const {
    const auto found = std::ranges::find_if(plan_.collectives, [&](const CollectiveUse& use) {
      return use.program == static_cast<int>(program) && use.step == static_cast<int>(step);
    });
    return found == plan_.collectives.end() ? nullptr : &*found;
  }

  // Why the kernel cannot take the place of the step's own; null if it can.
  std::optional<std::string> misfit(const KernelDef& kernel, const OpCall& call, const Program& program, const Step& step,
                                    const CollectiveUse* use) const {
    if (kernel.name == step.kernel) return std::nullopt;  // it was looked at when the plan was read
    if (auto reason = refusal(kernel, call, plan_.exact)) return reason;
    const int place = place_of_result(program, step);
    if (place >= 0 && kernel.in_place_operand != place) return fmt::format("the engine has its result in the memory of operand {}", place);
    if (!use) return std::nullopt;
    const bool same = kernel.sent_bytes ? kernel.sent_bytes(call) == use->bytes : !find_kernel(step.kernel)->sent_bytes;
    return same ? std::nullopt : std::optional<std::string>("its ranks send something else than the engine says");
  }

  bool time_step(std::size_t p, std::size_t s) {
    const Program& program = plan_.programs[p];
    Step& step = plan_.programs[p].steps[s];
    const OpDef* op = all_ops().find(step.op);
    check(op != nullptr, "a step has an op");
    const OpCall call = call_of(program, step, *op);
    const CollectiveUse* use = use_of(p, s);
    Choice choice{.kernel = find_kernel(step.kernel)};
    std::vector<const KernelDef*> own;  // those for any op only stand in
    for (const KernelDef* kernel : kernels_of(step.op, plan_.device)) {
      const bool stands_in = kernel->op.empty();
      if (stands_in && kernel != choice.kernel) continue;
      const auto reason = misfit(*kernel, call, program, step, use);
      choice.candidates.push_back({std::string(kernel->name), 0, reason.value_or("")});
      if (!reason && !stands_in) own.push_back(kernel);
    }
    if (std::ranges::find(options_.kernels, step.kernel) != options_.kernels.end()) own = {choice.kernel};
    if (own.empty() || (own.size() == 1 && (own[0] != choice.kernel || !own[0]->algorithms))) return false;
    if (!time_all(call, program, step, use, own, choice)) return false;
    take(program, step, call, std::move(choice));
    return true;
  }

  bool time_all(const OpCall& call, const Program& program, const Step& step, const CollectiveUse* use,
                const std::vector<const KernelDef*>& kernels, Choice& choice) {
    std::vector<bool> weights;
    for (const int v : step.operands)
      weights.push_back(v >= 0 && program.values[static_cast<std::size_t>(v)].kind == PlanValue::Kind::weight);
    OpCall bound;
    try {
      SymbolValues symbols = trial_symbols(program.profiles.empty() ? Profile() : program.profiles[0], plan_.mesh);
      bind_to_bounds(measured_of(program), symbols);
      bound = call.bound(symbols);
    } catch (const Error&) {
      return false;  // a symbol without a typical value: the kernel stays
    }
    timer_.time(bound, weights, use ? ranks_of(*use, plan_.mesh) : 1, kernels, choice);
    return choice.microseconds > 0;
  }

  void take(const Program& program, Step& step, const OpCall& call, Choice choice) {
    if (options_.sm != 0) add_code(plan_, program.profiles, *choice.kernel, call, options_.sm);
    step.kernel = choice.kernel->name;
    step.microseconds = choice.microseconds;
    step.algorithm = std::move(choice.algorithm);
    if (choice.candidates.size() > 1) step.candidates = std::move(choice.candidates);
  }

  Plan& plan_;
  const PlanOptions& options_;
  StepTimer timer_;
};

}  // namespace

int retime(Plan& plan, const PlanOptions& options) { return Retimer(plan, options).run(); }

}  // namespace tandem
