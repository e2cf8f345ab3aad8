#include "runtime/rechoose.h"

#include <fmt/ranges.h>

#include <algorithm>

#include "core/check.h"
#include "device/code.h"
#include "device/device.h"
#include "ops/kernel.h"
#include "ops/libraries_cpu.h"
#include "ops/ops.h"
#include "ops/rule_cpu.h"
#include "plan/step_call.h"
#include "plan/typical.h"

namespace tandem {
namespace {

// Every value that KernelDef::library has in any build, by device.
constexpr struct {
  const char *device, *library;
} kLibraries[] = {{"cpu", "onednn"}, {"cuda", "cublaslt"}, {"cuda", "cudnn"}, {"cuda", "nvrtc"}};

std::string version_in(const std::map<std::string, std::string>& versions, const std::string& library) {
  const auto found = versions.find(library);
  return found == versions.end() ? "none" : found->second;
}

// Of the compiler it matters only whether kernels come from somewhere: their text is ours.
bool differs(const Plan& plan, const std::string& library) {
  if (library == "nvrtc" && plan.built_with.contains("compiler"))
    return plan.built_with.contains(library) != (can_compile_cuda() || brings_code(plan));
  return plan.built_with.contains("compiler") && version_in(plan.built_with, library) != version_in(library_versions(plan.device), library);
}

const KernelDef* choose(const Plan& plan, const Program& program, const Step& step) {
  const OpDef* op = all_ops().find(step.op);
  if (!op) return nullptr;
  const OpCall call = call_of(program, step, *op);
  const int place = place_of_result(program, step);
  std::vector<const KernelDef*> own, any;
  for (const KernelDef* kernel : kernels_of(step.op, plan.device)) {
    if (refusal(*kernel, call, plan.exact) || (place >= 0 && kernel->in_place_operand != place)) continue;
    (kernel->op.empty() ? any : own).push_back(kernel);
  }
  if (own.empty() && any.empty()) return nullptr;
  return choose_by_rule(own.empty() ? any : own, call, typical_symbols(program));
}

// Where a kernel of such a library could run it: one that was there is another now, or one that was not there is.
bool is_affected(const Plan& plan, const Step& step) {
  if (step.communicates) return false;  // what it sends is part of the plan
  if (!find_kernel(step.kernel)) return true;
  return std::ranges::any_of(kernels_of(step.op, plan.device),
                             [&](const KernelDef* k) { return !k->library.empty() && differs(plan, std::string(k->library)); });
}

}  // namespace

bool brings_code(const Plan& plan) {
  if (plan.device != "cuda" || cuda_device_count() == 0) return false;
  return std::ranges::any_of(plan.code, [sm = open_device("cuda", 0)->sm()](const StoredCode& code) { return runs_on(code.sm, sm); });
}

std::vector<std::string> library_differences(const Plan& plan) {
  std::vector<std::string> found;
  if (plan.device == "cuda" && cuda_device_count() == 0) return found;  // nothing is to run here
  for (const auto& [device, library] : kLibraries)
    if (plan.device == device && differs(plan, library))
      found.push_back(
          fmt::format("{} {}, here {}", library, version_in(plan.built_with, library), version_in(library_versions(device), library)));
  return found;
}

void choose_again(Plan& plan) {
  const std::vector<std::string> differences = library_differences(plan);
  if (differences.empty()) return;
  int affected = 0;
  for (Program& program : plan.programs)
    for (Step& step : program.steps) {
      const KernelDef* kernel = is_affected(plan, step) ? choose(plan, program, step) : nullptr;
      if (!kernel) continue;
      ++affected;
      step.kernel = kernel->name;
      step.microseconds = 0;
      step.algorithm.clear();
      step.starts_early = false;
      step.resident.clear();
      step.candidates.clear();
    }
  plan.notices.push_back(
      fmt::format("built with {}: the kernels of {} steps were chosen again, by rule", fmt::join(differences, "; "), affected));
}

}  // namespace tandem
