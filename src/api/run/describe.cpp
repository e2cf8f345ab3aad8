// What `inspect` shows of an engine, as JSON.
#include <algorithm>
#include <nlohmann/json.hpp>

#include "api/run/describe_program.h"
#include "api/run/engine_data.h"
#include "core/check.h"
#include "core/stored_bytes.h"
#include "plan/measured.h"
#include "plan/typical.h"
#include "runtime/memory.h"
#include "runtime/symbols.h"

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
  out["range"] = port.range;
  describe_sharding(out, binding.sharding, binding.type.rank());
  return out;
}

Json describe_step(const Step& step, const std::string& layer) {
  Json out = {{"op", step.op},
              {"node", step.node},
              {"layer", layer},
              {"kernel", step.kernel},
              {"note", step.note},
              {"microseconds", step.microseconds},
              {"operands", step.operands},
              {"results", step.results},
              {"communicates", step.communicates}};
  if (!step.algorithm.empty()) out["algorithm"] = step.algorithm;
  if (step.starts_early) out["starts_early"] = true;
  out["candidates"] = Json::array();
  for (const Candidate& c : step.candidates)
    out["candidates"].push_back({{"kernel", c.kernel}, {"microseconds", c.microseconds}, {"reason", c.reason}});
  return out;
}

Json describe_weight(const PlanWeight& weight) {
  Json out = {
      {"name", weight.name}, {"dtype", to_string(weight.dtype)}, {"shape", weight.shape}, {"axes", weight.axes}, {"frozen", weight.frozen}};
  out["bytes"] = stored_bytes(weight.dtype, element_count(weight.shape));
  out["split"] = split_of(*weight.recipe);
  return out;
}

Json describe_collective(const Plan& plan, const CollectiveUse& use, const SymbolValues& symbols) {
  const Step& step = plan.programs.at(static_cast<std::size_t>(use.program)).steps.at(static_cast<std::size_t>(use.step));
  Json out = {{"operation", use.operation},
              {"dtype", to_string(use.dtype)},
              {"count", number_or_text(use.count)},
              {"bytes", number_or_text(use.bytes)},
              {"axis", use.axis},
              {"groups", use.groups},
              {"node", step.node},
              {"note", step.note}};
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
SymbolValues symbols_of(const Plan& plan, std::size_t profile, int rank, const SymbolValues& given) {
  SymbolValues symbols = typical_symbols(plan.programs.at(profile));
  for (auto& [name, size] : symbols)
    if (const auto found = given.find(name); found != given.end()) size = found->second;
  bind_to_bounds(measured_of(plan.programs.at(profile)), symbols);
  symbols.merge(coordinates(plan.mesh, rank));
  return symbols;
}

std::size_t arena_bytes(const Plan& plan, std::size_t profile, int rank, const SymbolValues& given) {
  const Program& program = plan.programs.at(profile);
  return plan_memory(program, symbols_of(plan, profile, rank, given), std::vector<bool>(program.values.size(), false)).arena_bytes;
}

// What one rank holds and sends.
Json describe_rank(const Plan& plan, std::size_t profile, int rank, const SymbolValues& given) {
  const SymbolValues symbols = symbols_of(plan, profile, rank, given);
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
    if (use.program == static_cast<int>(profile) && takes_part(use, rank)) sent += use.bytes.evaluate(symbols);
  out["weight_bytes"] = weights;
  out["split_weight_bytes"] = split;
  out["activation_bytes"] = arena_bytes(plan, profile, rank, given);
  out["sent_bytes"] = sent;
  out["live_bytes"] = live_bytes(plan.programs.at(profile), symbols);
  return out;
}

// Of the largest shapes; null where these do not go together.
Json largest_arena(const Plan& plan, std::size_t profile, int rank) {
  try {
    return arena_bytes(plan, profile, rank, largest_symbols(plan, profile));
  } catch (const Error&) {
    return nullptr;
  }
}

// What each optimization profile is for, and what it takes on the rank that takes most. Steps are told where its kernel is another than in
// profile `shown`.
Json describe_profile(const Engine& of, std::size_t profile, std::size_t shown) {
  const EngineData& engine = of.data();
  const Program& program = engine.plan().programs.at(profile);
  Json out = {{"symbols", Json::object()}, {"inputs", Json::array()}, {"outputs", Json::array()}, {"steps", Json::array()}};
  for (const Profile& p : program.profiles)
    for (const auto& [name, range] : p) out["symbols"][name] = {range.min, range.opt, range.max};
  const auto add = [&](const char* kind, const Port& port) {
    out[kind].push_back({{"name", port.name}, {"range", port.range}, {"local_range", port.local_range}});
  };
  for (const Port& port : of.inputs(static_cast<int>(profile))) add("inputs", port);
  for (const Port& port : of.outputs(static_cast<int>(profile))) add("outputs", port);
  Json typical = 0, largest = 0;
  for (int rank = 0; rank < engine.plan().world_size(); ++rank) {
    const Plan& plan = *engine.plans.at(engine.plans.size() > 1 ? static_cast<std::size_t>(rank) : 0);
    typical = std::max<Json>(typical, arena_bytes(plan, profile, rank, {}));
    const Json bytes = largest_arena(plan, profile, rank);
    largest = bytes.is_null() || largest.is_null() ? Json() : std::max<Json>(largest, bytes);
  }
  out["activation_bytes"] = typical;
  out["max_activation_bytes"] = largest;
  const std::vector<Step>& others = engine.plan().programs.at(shown).steps;
  for (std::size_t s = 0; s < program.steps.size() && s < others.size(); ++s)
    if (program.steps[s].kernel != others[s].kernel || program.steps[s].algorithm != others[s].algorithm)
      out["steps"].push_back({{"step", s},
                              {"node", program.steps[s].node},
                              {"kernel", program.steps[s].kernel},
                              {"instead_of", others[s].kernel},
                              {"microseconds", program.steps[s].microseconds}});
  return out;
}

// Of the profiles that hold all sizes in `at`, with typical ones of the other symbols, the nearest; the first where none does.
std::size_t profile_for(const Plan& plan, const std::map<std::string, std::int64_t>& at) {
  std::size_t best = plan.profiles();
  double nearest = 0;
  for (std::size_t p = 0; p < plan.profiles(); ++p) {
    const SymbolValues given(at.begin(), at.end());  // others are typical, which adds nothing
    const double far = distance(plan.programs[p], given);
    if (!misfit(plan.programs[p], given).empty() || (best < p && nearest <= far)) continue;
    best = p;
    nearest = far;
  }
  return best < plan.profiles() ? best : 0;
}

// Typical sizes, but for those that `at` gives.
SymbolValues sizes(const Program& program, const std::map<std::string, std::int64_t>& at) {
  SymbolValues symbols = typical_symbols(program);
  const MeasuredList measured = measured_of(program);
  for (const auto& [name, size] : at) {
    const auto found = symbols.find(name);
    if (found == symbols.end() || is_measured(measured, {Dim::symbol(name)})) {
      std::string known;
      for (const auto& [symbol, typical] : symbols)
        if (!is_measured(measured, {Dim::symbol(symbol)})) known += (known.empty() ? "" : ", ") + symbol;
      if (known.empty()) fail(ErrorCode::invalid_argument, "the engine has no size '{}': all its shapes are fixed", name);
      fail(ErrorCode::invalid_argument, "the engine has no size '{}', expected one of: {}", name, known);
    }
    const auto in = [&, n = size](const Profile& p) { return !p.contains(name) || (p.at(name).min <= n && n <= p.at(name).max); };
    if (size < 0 || (!program.profiles.empty() && std::ranges::none_of(program.profiles, in)))
      fail(ErrorCode::invalid_argument, "{}={} is outside of what the engine was built for", name, size);
    found->second = size;
  }
  bind_to_bounds(measured, symbols);
  return symbols;
}

}  // namespace

bool Engine::refittable() const { return data_->plan().refittable; }

int Engine::auxiliary_streams() const {
  int most = 0;
  for (const auto& plan : data_->plans) most = std::max(most, tandem::auxiliary_streams(*plan));
  return most;
}

std::size_t Engine::activation_bytes() const {
  std::size_t most = 0;
  for (std::size_t p = 0; p < data_->plan().profiles(); ++p)
    for (int rank = 0; rank < ranks(); ++rank) most = std::max(most, arena_bytes(data_->plan(), p, rank, {}));
  return most;
}

std::string Engine::describe(const std::map<std::string, std::int64_t>& at) const {
  const Plan& plan = data_->plan();
  const std::size_t profile = profile_for(plan, at);
  const Program& program = plan.programs.at(profile);
  const SymbolValues given = sizes(program, at);
  const SymbolValues symbols = symbols_of(plan, profile, 0, given);
  Json out = {{"tool", plan.tool},
              {"device", plan.device},
              {"mesh", plan.mesh.to_string()},
              {"world_size", plan.world_size()},
              {"strategy", plan.strategy},
              {"refittable", plan.refittable},
              {"exact", plan.exact},
              {"tf32", plan.tf32},
              {"auxiliary_streams", auxiliary_streams()},
              {"notices", plan.notices},
              {"built_with", plan.built_with}};
  out["has_weights"] = has_weights();
  out["digest"] = fmt::format("{:016x}", digest(plan));
  for (const char* key : {"axes", "inputs", "outputs", "steps", "collectives", "weights", "ranks", "profiles"}) out[key] = Json::array();
  out["profile"] = profile;
  for (std::size_t p = 0; p < plan.profiles(); ++p) out["profiles"].push_back(describe_profile(*this, p, profile));
  for (const StoredCode& code : plan.code) out["code"].push_back({{"text", code.text}, {"sm", code.sm}, {"bytes", code.size}});
  for (const MeshAxis& axis : plan.mesh.axes()) out["axes"].push_back({{"name", axis.name}, {"size", axis.size}});
  const std::vector<Port> in = inputs(static_cast<int>(profile)), back = outputs(static_cast<int>(profile));
  for (std::size_t i = 0; i < in.size(); ++i) out["inputs"].push_back(describe_port(program.inputs[i], in[i]));
  for (std::size_t i = 0; i < back.size(); ++i) out["outputs"].push_back(describe_port(program.outputs[i], back[i]));
  const std::vector<std::string> layers = layers_of(plan, program);
  for (std::size_t s = 0; s < layers.size(); ++s) out["steps"].push_back(describe_step(program.steps[s], layers[s]));
  out["values"] = describe_values(program, symbols);
  for (const PlanWeight& weight : plan.weights) out["weights"].push_back(describe_weight(weight));
  for (const CollectiveUse& use : plan.collectives)
    if (use.program == static_cast<int>(profile)) out["collectives"].push_back(describe_collective(plan, use, symbols));
  for (int rank = 0; rank < plan.world_size(); ++rank) {
    const std::size_t own = data_->plans.size() > 1 ? static_cast<std::size_t>(rank) : 0;
    out["ranks"].push_back(describe_rank(*data_->plans.at(own), profile, rank, given));
  }
  out["activation_bytes_for"] = given;
  return out.dump();
}

}  // namespace tandem
