#include "api/build/auto.h"

#include <algorithm>

#include "build/build.h"
#include "core/check.h"
#include "core/stored_bytes.h"
#include "graph/text.h"
#include "plan/typical.h"
#include "tandem/machine.h"

namespace tandem {
namespace {

double elements(const Type& type, const SymbolValues& symbols) {
  double count = 1;
  for (const Dim& d : type.dims) count *= static_cast<double>(d.evaluate(symbols));
  return count;
}

double bytes_of(const Type& type, const SymbolValues& symbols) { return elements(type, symbols) * bits(type.dtype) / 8; }

// Multiplications and additions of the ops that have more of them than they have bytes.
double flops_of(const Program& program, const Step& step, const SymbolValues& symbols) {
  const auto type = [&](int i) { return program.values[static_cast<std::size_t>(i)].type; };
  if (step.op == "MatMul" || step.op == "DequantMatMul" || step.op == "QuantMatMul")
    return 2 * elements(type(step.results.at(0)), symbols) * static_cast<double>(type(step.operands.at(0)).dims.back().evaluate(symbols));
  if (step.op != "Attention") return 0;
  const Dim whole = step.attributes.dim("kv_extent");
  const double columns = static_cast<double>((whole == Dim(0) ? type(step.operands.at(1)).dims[2] : whole).evaluate(symbols));
  return 4 * elements(type(step.operands.at(0)), symbols) * columns;
}

double seconds_of(const Program& program, const Step& step, const SymbolValues& symbols, const Machine& machine) {
  double moved = 0;
  if (step.op != "Reshape") {
    for (const int i : step.operands)
      if (i >= 0) moved += bytes_of(program.values[static_cast<std::size_t>(i)].type, symbols);
    for (const int i : step.results) moved += bytes_of(program.values[static_cast<std::size_t>(i)].type, symbols);
  }
  return std::max(flops_of(program, step, symbols) / machine.flops, moved / machine.bandwidth);
}

// The most that is alive at once.
double peak_bytes(const Program& program, const SymbolValues& symbols) {
  double most = 0;
  for (int step = 0; step < static_cast<int>(program.steps.size()); ++step) {
    double alive = 0;
    for (const PlanValue& value : program.values)
      if (value.kind == PlanValue::Kind::temporary && value.alias_of < 0 && value.first_step <= step && step <= value.last_step)
        alive += bytes_of(value.type, symbols);
    most = std::max(most, alive);
  }
  return most;
}

std::vector<Mesh> meshes(int ranks) {
  std::vector<Mesh> all;
  for (int dp = 1; dp <= ranks; ++dp)
    for (int cp = 1; ranks % dp == 0 && cp <= ranks / dp; ++cp) {
      if (ranks / dp % cp != 0) continue;
      std::vector<MeshAxis> axes = {{"dp", dp}, {"cp", cp}, {"tp", ranks / dp / cp}};
      std::erase_if(axes, [](const MeshAxis& axis) { return axis.size == 1; });
      all.emplace_back(axes);
    }
  return all;
}

std::string describe(const Cost& cost) {
  if (!cost.refused.empty()) return fmt::format("{} ({})", cost.mesh.to_string(), cost.refused);
  return fmt::format("{} ({:.3g} ms, {:.1f} MB a rank)", cost.mesh.to_string(), cost.seconds * 1e3, cost.bytes / 1e6);
}

double memory_of_a_rank(const Machine& machine, int ranks) {
  if (machine.memory > 0) return machine.memory;
  return static_cast<double>(inspect_machine(false).memory_bytes) / ranks;
}

}  // namespace

Cost estimate(const Plan& plan, const Machine& machine) {
  const Program& program = plan.programs.at(0);
  const SymbolValues symbols = typical_symbols(program);
  Cost cost{.mesh = plan.mesh};
  for (const Step& step : program.steps) cost.seconds += seconds_of(program, step, symbols, machine);
  for (const CollectiveUse& use : plan.collectives)
    if (use.program == 0) cost.seconds += machine.latency + static_cast<double>(use.bytes.evaluate(symbols)) / machine.link;
  for (const PlanWeight& weight : plan.weights) cost.bytes += static_cast<double>(stored_bytes(weight.dtype, element_count(weight.shape)));
  cost.bytes += peak_bytes(program, symbols);
  return cost;
}

std::vector<Cost> alternatives(const Module& module, const PipelineOptions& pipeline, int ranks, const Machine& machine) {
  std::vector<Cost> costs;
  for (const Mesh& mesh : meshes(ranks)) {
    Cost cost{.mesh = mesh};
    const auto copy = clone(module);
    PipelineOptions options = pipeline;
    options.pass.mesh = mesh;
    options.dump.clear();
    options.timing = nullptr;
    try {
      run_pipeline(*copy, options);
      cost = estimate(build_plan(*copy), machine);
      if (cost.bytes > memory_of_a_rank(machine, ranks)) cost.refused = fmt::format("{:.1f} MB a rank do not fit", cost.bytes / 1e6);
    } catch (const Error& error) {
      if (error.code() != ErrorCode::unsupported) throw;
      cost.refused = error.what();
    }
    costs.push_back(std::move(cost));
  }
  std::stable_sort(costs.begin(), costs.end(), [](const Cost& a, const Cost& b) {
    return a.refused.empty() != b.refused.empty() ? a.refused.empty() : a.seconds < b.seconds;
  });
  return costs;
}

Mesh choose_mesh(const Module& module, const PipelineOptions& pipeline, int ranks, std::string& notice) {
  const std::vector<Cost> costs = alternatives(module, pipeline, ranks);
  std::vector<std::string> others;
  for (std::size_t i = costs[0].refused.empty() ? 1 : 0; i < costs.size(); ++i) others.push_back(describe(costs[i]));
  if (!costs[0].refused.empty()) fail(ErrorCode::unsupported, "no mesh of {} ranks can be had: {}", ranks, fmt::join(others, "; "));
  notice = fmt::format("auto: {}{}{}", describe(costs[0]), others.empty() ? "" : " before ", fmt::join(others, ", "));
  return costs[0].mesh;
}

}  // namespace tandem
