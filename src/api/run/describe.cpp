// What `inspect` shows of an engine, as JSON.
#include <nlohmann/json.hpp>

#include "api/run/engine_data.h"
#include "core/check.h"
#include "plan/typical.h"
#include "runtime/memory.h"

namespace tandem {
namespace {

using Json = nlohmann::json;

Json number_or_text(const Dim& dim) { return dim.is_constant() ? Json(dim.constant()) : Json(dim.to_string()); }

Json describe_port(const Binding& binding, const Port& port) {
  Json shape = Json::array(), local = Json::array();
  for (const Dim& dim : binding.type.dims) shape.push_back(number_or_text(dim));
  for (const std::string& extent : port.local_shape) local.push_back(number_or_text(Dim::parse(extent)));
  return {{"name", binding.name}, {"dtype", to_string(binding.type.dtype)}, {"shape", shape}, {"sharding", binding.sharding.to_string()}, {"local_shape", local}, {"local_range", port.local_range}};
}

Json describe_step(const Step& step) {
  Json out = {{"op", step.op}, {"node", step.node}, {"kernel", step.kernel}, {"note", step.note}, {"microseconds", step.microseconds}};
  out["candidates"] = Json::array();
  for (const Candidate& c : step.candidates) out["candidates"].push_back({{"kernel", c.kernel}, {"microseconds", c.microseconds}, {"reason", c.reason}});
  return out;
}

Json describe_weight(const PlanWeight& weight) {
  Json out = {{"name", weight.name}, {"dtype", to_string(weight.dtype)}, {"shape", weight.shape}, {"axes", weight.axes}, {"frozen", weight.frozen}};
  out["bytes"] = bytes(weight.dtype, element_count(weight.shape));
  return out;
}

Json describe_collective(const Plan& plan, const CollectiveUse& use, const SymbolValues& symbols) {
  const Step& step = plan.programs.at(static_cast<std::size_t>(use.program)).steps.at(static_cast<std::size_t>(use.step));
  Json out = {{"operation", use.operation}, {"dtype", to_string(use.dtype)}, {"count", number_or_text(use.count)}, {"bytes", number_or_text(use.bytes)},
              {"axis", use.axis}, {"groups", use.groups}, {"node", step.node}, {"note", step.note}};
  out["step"] = use.step;
  out["typical_bytes"] = use.bytes.evaluate(symbols);
  if (!use.reduce.empty()) out["reduce"] = use.reduce;
  if (use.root >= 0) out["root"] = use.root;
  return out;
}

std::size_t weight_bytes(const Plan& plan) {
  std::size_t total = 0;
  for (const PlanWeight& weight : plan.weights) total += bytes(weight.dtype, element_count(weight.shape));
  return total;
}

SymbolValues symbols_of(const Plan& plan, int rank) {
  SymbolValues symbols = typical_symbols(plan.programs.at(0));
  symbols.merge(coordinates(plan.mesh, rank));
  return symbols;
}

std::size_t activation_bytes(const Plan& plan, int rank) {
  const Program& program = plan.programs.at(0);
  const SymbolValues symbols = symbols_of(plan, rank);
  return plan_memory(program, symbols, std::vector<bool>(program.values.size(), false)).arena_bytes;
}

}  // namespace

bool Engine::refittable() const { return data_->plan().refittable; }

std::size_t Engine::activation_bytes() const {
  std::size_t most = 0;
  for (int rank = 0; rank < ranks(); ++rank) most = std::max(most, tandem::activation_bytes(data_->plan(), rank));
  return most;
}

std::string Engine::describe() const {
  const Plan& plan = data_->plan();
  const Program& program = plan.programs.at(0);
  Json out = {{"tool", plan.tool}, {"device", plan.device}, {"mesh", plan.mesh.to_string()}, {"world_size", plan.world_size()},
              {"strategy", plan.strategy}, {"refittable", plan.refittable}, {"exact", plan.exact}, {"notices", plan.notices}, {"built_with", plan.built_with}};
  out["has_weights"] = has_weights();
  out["digest"] = fmt::format("{:016x}", digest(plan));
  for (const char* key : {"inputs", "outputs", "steps", "collectives", "weights", "ranks"}) out[key] = Json::array();
  const std::vector<Port> in = inputs(), back = outputs();
  for (std::size_t i = 0; i < in.size(); ++i) out["inputs"].push_back(describe_port(program.inputs[i], in[i]));
  for (std::size_t i = 0; i < back.size(); ++i) out["outputs"].push_back(describe_port(program.outputs[i], back[i]));
  for (const Step& step : program.steps) out["steps"].push_back(describe_step(step));
  for (const PlanWeight& weight : plan.weights) out["weights"].push_back(describe_weight(weight));
  for (const CollectiveUse& use : plan.collectives) out["collectives"].push_back(describe_collective(plan, use, symbols_of(plan, 0)));
  for (int rank = 0; rank < plan.world_size(); ++rank)
    out["ranks"].push_back({{"rank", rank}, {"weight_bytes", weight_bytes(plan)}, {"activation_bytes", activation_bytes(plan, rank)}});
  Json symbols = Json::object();
  for (const auto& [name, value] : typical_symbols(program)) symbols[name] = value;
  out["activation_bytes_for"] = symbols;
  return out.dump();
}

}  // namespace tandem
