#include "build/choose.h"

#include <algorithm>

#include "core/check.h"
#include "graph/text_values.h"
#include "ops/libraries_cpu.h"
#include "ops/rule_cpu.h"

namespace tandem {
namespace {

// Everything a time depends on but the machine, which the Measure adds.
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
  return key;
}

int ranks_of(const Node& node, const Mesh& mesh) {
  if (!communicates(node)) return 1;
  const CollectiveUse use = collective_use(node, mesh);
  return !use.axis.empty() ? mesh.size(use.axis) : !use.groups.empty() ? static_cast<int>(use.groups[0].size()) : mesh.size();
}

}  // namespace

KernelChooser::KernelChooser(const Graph& graph, std::size_t profile, const Mesh& mesh, const PlanOptions& options)
    : mesh_(mesh), options_(options), symbols_(coordinates(mesh, 0)) {
  for (const std::string& name : options.kernels)
    if (!find_kernel(name)) fail(ErrorCode::invalid_argument, "no kernel is called '{}'", name);
  if (graph.profiles.empty()) return;
  for (const auto& [name, range] : graph.profiles[profile]) symbols_[name] = range.opt;
}

Choice KernelChooser::choose(const Node& node) {
  const OpCall call = node.call();
  Choice choice;
  std::vector<const KernelDef*> own, any;
  for (const KernelDef* kernel : kernels_of(node.op().name, options_.device)) {
    const auto reason = refusal(*kernel, call, options_.exact);
    choice.candidates.push_back({std::string(kernel->name), 0, reason.value_or("")});
    if (!reason) (kernel->op.empty() ? any : own).push_back(kernel);
  }
  if (own.empty() && any.empty()) {
    std::string reasons;
    for (const Candidate& c : choice.candidates) reasons += fmt::format("{}{}: {}", reasons.empty() ? "" : "; ", c.kernel, c.reason);
    throw Error(ErrorCode::unsupported, fmt::format("no kernel of this build can run it ({})", reasons.empty() ? "there is none" : reasons),
                node.label());
  }
  const auto asked_for = [&](const KernelDef* kernel) {
    return std::ranges::find(options_.kernels, kernel->name) != options_.kernels.end();
  };
  const auto asked = std::ranges::find_if(own, asked_for);
  choice.kernel = asked != own.end() ? *asked : choose_by_rule(own.empty() ? any : own, call, symbols_);
  // Kernels for any op stand in where an op has none of its own.
  const auto stands_in = [&](const Candidate& c) { return c.kernel != choice.kernel->name && find_kernel(c.kernel)->op.empty(); };
  std::erase_if(choice.candidates, stands_in);
  const bool is_open = own.size() > 1 && asked == own.end();
  if (options_.measure && is_open) time(node, own, choice);
  else if (options_.measure && choice.kernel->algorithms) time(node, {choice.kernel}, choice);
  if (choice.candidates.size() < 2) choice.candidates.clear();
  return choice;
}

void KernelChooser::time(const Node& node, const std::vector<const KernelDef*>& kernels, Choice& choice) {
  OpCall call;
  try {
    call = node.call().bound(symbols_);
  } catch (const Error&) {
    return;  // a symbol without a typical value: the order of the kernels decides
  }
  std::vector<bool> weights;
  for (const Value* operand : node.operands()) weights.push_back(operand && operand->weight());
  for (const KernelDef* kernel : kernels) {
    Candidate& candidate = *std::ranges::find(choice.candidates, kernel->name, &Candidate::kernel);
    Timing timing;
    try {
      timing = time_one({*kernel, call, weights, ranks_of(node, mesh_)});
    } catch (const Error& error) {
      if (error.code() == ErrorCode::interrupted) throw;
      candidate.reason = "timing it failed: " + error.message();
      continue;
    }
    candidate.microseconds = timing.microseconds;
    if (choice.microseconds > 0 && choice.microseconds <= timing.microseconds) continue;
    choice.microseconds = timing.microseconds;
    choice.algorithm = timing.algorithm;
    choice.kernel = kernel;
  }
}

Timing KernelChooser::time_one(const Trial& trial) {
  TimingCache& cache = options_.cache ? *options_.cache : memory_;
  const std::string key = options_.machine + " " + key_of(trial);
  if (const auto known = cache.find(key)) return *known;
  Timing timing = options_.measure(trial);
  cache.add(key, timing);
  return timing;
}

}  // namespace tandem
