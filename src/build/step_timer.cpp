#include "build/step_timer.h"

#include <algorithm>

#include "core/check.h"
#include "graph/text_values.h"
#include "ops/libraries_cpu.h"

namespace tandem {
namespace {

// Everything a time depends on but the machine, which the options name.
std::string key_of(const Trial& trial) {
  std::string key = fmt::format("{} ranks={}", trial.kernel.name, trial.ranks);
  if (!trial.kernel.library.empty()) {
    const auto versions = library_versions(std::string(trial.kernel.device));
    const auto version = versions.find(std::string(trial.kernel.library));
    if (version != versions.end()) key += fmt::format(" {}={}", version->first, version->second);
  }
  const auto& fields = trial.call.attributes.fields();
  for (std::size_t i = 0; i < fields.size(); ++i)
    key += fmt::format(" {}={}", fields[i].name, print_value(trial.call.attributes.values()[i]));
  for (std::size_t i = 0; i < trial.call.operands.size(); ++i)
    key += trial.call.has_operand(i) ? fmt::format(" {}{}", trial.weights[i] ? "w:" : "", trial.call.operand(i).to_string()) : " -";
  const auto is_f32 = [](const Type& type) { return type.dtype == DType::f32; };
  if (trial.tf32 && std::ranges::any_of(trial.call.results, is_f32)) key += " tf32";
  if (trial.exact && trial.ranks > 1) key += " exact";  // attention over ranks has other kernels inside
  return key;
}

// A kernel that keeps weights in its own way is taken, of those that are not preferred anyhow, only where it is faster by more than times
// of one kernel differ between builds.
double handicap_of(const KernelDef& kernel) { return kernel.pack ? 1.05 : 1; }

}  // namespace

SymbolValues trial_symbols(const Profile& profile, const Mesh& mesh) {
  SymbolValues symbols = coordinates(mesh, 0);
  for (const auto& [name, range] : profile) symbols[name] = range.opt;
  return symbols;
}

void StepTimer::time(const OpCall& call, const std::vector<bool>& weights, int ranks, const std::vector<const KernelDef*>& kernels,
                     Choice& choice) {
  for (const KernelDef* kernel : kernels) {
    Candidate& candidate = *std::ranges::find(choice.candidates, kernel->name, &Candidate::kernel);
    Timing timing;
    try {
      timing = time_one({*kernel, call, weights, ranks, tf32_, exact_});
    } catch (const Error& error) {
      if (error.code() == ErrorCode::interrupted) throw;
      candidate.reason = fmt::format("timing it failed: {}", error.what());
      continue;
    }
    candidate.microseconds = timing.microseconds;
    if (choice.microseconds > 0 && choice.microseconds <= timing.microseconds * handicap_of(*kernel)) continue;
    choice.microseconds = timing.microseconds;
    choice.algorithm = timing.algorithm;
    choice.kernel = kernel;
  }
}

Timing StepTimer::time_one(const Trial& trial) {
  TimingCache& cache = options_.cache ? *options_.cache : memory_;
  const std::string key = options_.machine + " " + key_of(trial);
  if (const auto known = cache.find(key)) return *known;
  Timing timing = options_.measure(trial);
  cache.add(key, timing);
  return timing;
}

}  // namespace tandem
