// What `inspect` shows of an engine, as JSON.
#include <algorithm>
#include <nlohmann/json.hpp>

#include "api/run/describe_program.h"
#include "api/run/engine_data.h"
#include "core/check.h"
#include "core/stored_bytes.h"
#include "plan/typical.h"
#include "runtime/memory.h"

namespace tandem {
namespace {

using Json = nlohmann::json;

Json describe_port(const Binding& binding, const Port& port) {
  Json shape = Json::array(), local = Json::array();
  for (const Dim& dim : binding.type.dims) shape.push_back(number_or_text(dim));
  for (const std::string& extent : port.local_shape) local.push_back(number_or_text(Dim::parse(extent)));
  Json out = {{"name", binding.name}, {"dtype", to_string(binding.type.dtype)}, {"shape", shape}, {"value", binding.value}};
  out["local_shape"] = std::move(local);
  out["local_range"] = port.local_range;
  describe_sharding(out, binding.sharding, binding.type.rank());
  return out;
}

Json describe_step(const Step& step, const std::string& layer) {
  Json out = {{"op", step.op}, {"node", step.node}, {"layer", layer}, {"kernel", step.kernel}, {"note", step.note}, {"microseconds", step.microseconds},
              {"operands", step.operands}, {"results", step.results}, {"communicates", step.communicates}};
  if (!step.algorithm.empty()) out["algorithm"] = step.algorithm;
  if (step.starts_early) out["starts_early"] = true;
  out["candidates"] = Json::array();
  for (const Candidate& c : step.candidates) out["candidates"].push_back({{"kernel", c.kernel}, {"microseconds", c.microseconds}, {"reason", c.reason}});
  return out;
}

Json describe_weight(const PlanWeight& weight) {
  Json out = {{"name", weight.name}, {"dtype", to_string(weight.dtype)}, {"shape", weight.shape}, {"axes", weight.axes}, {"frozen", weight.frozen}};
  out["bytes"] = stored_bytes(weight.dtype, element_count(weight.shape));
  out["split"] = split_of(*weight.recipe);
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

bool takes_part(const CollectiveUse& use, int rank) {
  const auto has_rank = [rank](const std::vector<std::int64_t>& group) { return std::ranges::find(group, rank) != group.end(); };
  return use.groups.empty() || std::ranges::any_of(use.groups, has_rank);
}

// Typical sizes, but for those given as far as the program knows them, with the coordinates of a rank.
SymbolValues symbols_of(const Plan& plan, int rank, const SymbolValues& given) {
  SymbolValues symbols = typical_symbols(plan.programs.at(0));
  for (auto& [name, size] : symbols)
    if (const auto found = given.find(name); found != given.end()) size = found->second;
  symbols.merge(coordinates(plan.mesh, rank));
  return symbols;
}

std::size_t arena_bytes(const Plan& plan, int rank, const SymbolValues& given) {
  const Program& program = plan.programs.at(0);
  return plan_memory(program, symbols_of(plan, rank, given), std::vector<bool>(program.values.size(), false)).arena_bytes;
}

// What one rank holds and sends.
Json describe_rank(const Plan& plan, int rank, const SymbolValues& given) {
  const SymbolValues symbols = symbols_of(plan, rank, given);
  Json out = {{"rank", rank}, {"coordinates", Json::object()}};
  for (const MeshAxis& axis : plan.mesh.axes()) out["coordinates"][axis.name] = plan.mesh.coordinate(rank, axis.name);
  std::size_t weights = 0, split = 0;
  for (const PlanWeight& weight : plan.weights) {
    const std::size_t size = stored_bytes(weight.dtype, element_count(weight.shape));
    weights += size;
    split += weight.axes.empty() ? 0 : size;
  }
  std::int64_t sent = 0;
  for (const CollectiveUse& use : plan.collectives)
    if (takes_part(use, rank)) sent += use.bytes.evaluate(symbols);
  out["weight_bytes"] = weights;
  out["split_weight_bytes"] = split;
  out["activation_bytes"] = arena_bytes(plan, rank, given);
  out["sent_bytes"] = sent;
  out["live_bytes"] = live_bytes(plan.programs.at(0), symbols);
  return out;
}

// Typical sizes, but for those that `at` gives.
SymbolValues sizes(const Program& program, const std::map<std::string, std::int64_t>& at) {
  SymbolValues symbols = typical_symbols(program);
  for (const auto& [name, size] : at) {
    const auto found = symbols.find(name);
    if (found == symbols.end()) {
      std::string known;
      for (const auto& [symbol, typical] : symbols) known += (known.empty() ? "" : ", ") + symbol;
      if (known.empty()) fail(ErrorCode::invalid_argument, "the engine has no size '{}': all its shapes are fixed", name);
      fail(ErrorCode::invalid_argument, "the engine has no size '{}', expected one of: {}", name, known);
    }
    const auto in = [&, n = size](const Profile& p) { return !p.contains(name) || (p.at(name).min <= n && n <= p.at(name).max); };
    if (size < 0 || (!program.profiles.empty() && std::ranges::none_of(program.profiles, in)))
      fail(ErrorCode::invalid_argument, "{}={} is outside of what the engine was built for", name, size);
    found->second = size;
  }
  return symbols;
}

}  // namespace

bool Engine::refittable() const { return data_->plan().refittable; }

std::size_t Engine::activation_bytes() const {
  std::size_t most = 0;
  for (int rank = 0; rank < ranks(); ++rank) most = std::max(most, arena_bytes(data_->plan(), rank, {}));
  return most;
}

std::string Engine::describe(const std::map<std::string, std::int64_t>& at) const {
  const Plan& plan = data_->plan();
  const Program& program = plan.programs.at(0);
  const SymbolValues given = sizes(program, at);
  const SymbolValues symbols = symbols_of(plan, 0, given);
  Json out = {{"tool", plan.tool}, {"device", plan.device}, {"mesh", plan.mesh.to_string()}, {"world_size", plan.world_size()},
              {"strategy", plan.strategy}, {"refittable", plan.refittable}, {"exact", plan.exact}, {"notices", plan.notices}, {"built_with", plan.built_with}};
  out["has_weights"] = has_weights();
  out["digest"] = fmt::format("{:016x}", digest(plan));
  for (const char* key : {"axes", "inputs", "outputs", "steps", "collectives", "weights", "ranks"}) out[key] = Json::array();
  for (const StoredCode& code : plan.code) out["code"].push_back({{"text", code.text}, {"sm", code.sm}, {"bytes", code.size}});
  for (const MeshAxis& axis : plan.mesh.axes()) out["axes"].push_back({{"name", axis.name}, {"size", axis.size}});
  const std::vector<Port> in = inputs(), back = outputs();
  for (std::size_t i = 0; i < in.size(); ++i) out["inputs"].push_back(describe_port(program.inputs[i], in[i]));
  for (std::size_t i = 0; i < back.size(); ++i) out["outputs"].push_back(describe_port(program.outputs[i], back[i]));
  const std::vector<std::string> layers = layers_of(plan, program);
  for (std::size_t s = 0; s < layers.size(); ++s) out["steps"].push_back(describe_step(program.steps[s], layers[s]));
  out["values"] = describe_values(program, symbols);
  for (const PlanWeight& weight : plan.weights) out["weights"].push_back(describe_weight(weight));
  for (const CollectiveUse& use : plan.collectives) out["collectives"].push_back(describe_collective(plan, use, symbols));
  for (int rank = 0; rank < plan.world_size(); ++rank) {
    const std::size_t own = data_->plans.size() > 1 ? static_cast<std::size_t>(rank) : 0;
    out["ranks"].push_back(describe_rank(*data_->plans.at(own), rank, given));
  }
  out["activation_bytes_for"] = given;
  return out.dump();
}

}  // namespace tandem
