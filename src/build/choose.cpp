#include "build/choose.h"

#include <algorithm>

#include "core/check.h"
#include "graph/measured.h"
#include "ops/rule_cpu.h"

namespace tandem {
namespace {

// In the plan a constant is a weight too.
bool is_weight(const Value& value) { return value.weight() || (value.producer() && value.producer()->is("Constant")); }

}  // namespace

KernelChooser::KernelChooser(const Graph& graph, std::size_t profile, const Mesh& mesh, const PlanOptions& options)
    : mesh_(mesh),
      options_(options),
      symbols_(trial_symbols(graph.profiles.empty() ? Profile() : graph.profiles[profile], mesh)),
      timer_(options, options.tf32, options.exact) {
  bind_to_bounds(graph, symbols_);
  for (const std::string& name : options.kernels)
    if (!find_kernel(name)) fail(ErrorCode::invalid_argument, "no kernel is called '{}'", name);
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
  for (const Value* operand : node.operands()) weights.push_back(operand && is_weight(*operand));
  timer_.time(call, weights, communicates(node) ? ranks_of(collective_use(node, mesh_), mesh_) : 1, kernels, choice);
}

}  // namespace tandem
