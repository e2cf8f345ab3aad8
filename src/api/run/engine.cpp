#include <cstring>
#include <nlohmann/json.hpp>
#include <random>

#include "api/run/engine_data.h"
#include "core/check.h"
#include "runtime/memory.h"
#include "runtime/symbols.h"

namespace tandem {
namespace {

using Json = nlohmann::json;

Json number_or_text(const Dim& dim) { return dim.is_constant() ? Json(dim.constant()) : Json(dim.to_string()); }

Port port(const Binding& binding) {
  Port out{binding.name, binding.type.dtype, {}, binding.sharding.to_string(), !binding.sharding.varying.empty()};
  for (const Dim& dim : binding.type.dims) out.shape.push_back(dim.to_string());
  return out;
}

Json describe_port(const Binding& binding) {
  Json shape = Json::array();
  for (const Dim& dim : binding.type.dims) shape.push_back(number_or_text(dim));
  return {{"name", binding.name}, {"dtype", to_string(binding.type.dtype)}, {"shape", shape}, {"sharding", binding.sharding.to_string()}};
}

const Step& step_of(const Plan& plan, const CollectiveUse& use) {
  return plan.programs.at(static_cast<std::size_t>(use.program)).steps.at(static_cast<std::size_t>(use.step));
}

Json describe_collective(const Plan& plan, const CollectiveUse& use) {
  const Step& step = step_of(plan, use);
  Json out = {{"operation", use.operation}, {"dtype", to_string(use.dtype)}, {"count", number_or_text(use.count)}, {"bytes", number_or_text(use.bytes)},
              {"axis", use.axis}, {"groups", use.groups}, {"node", step.node}, {"note", step.note}};
  if (!use.reduce.empty()) out["reduce"] = use.reduce;
  if (use.root >= 0) out["root"] = use.root;
  return out;
}

std::size_t weight_bytes(const Plan& plan) {
  std::size_t total = 0;
  for (const PlanWeight& weight : plan.weights) total += bytes(weight.dtype, element_count(weight.shape));
  return total;
}

std::size_t activation_bytes(const Plan& plan, int rank) {
  const Program& program = plan.programs.at(0);
  SymbolValues symbols = typical_symbols(program);
  symbols.merge(coordinates(plan.mesh, rank));
  return plan_memory(program, symbols, std::vector<bool>(program.values.size(), false)).arena_bytes;
}

}  // namespace

int Engine::ranks() const { return data_->plan().world_size(); }
std::string Engine::mesh() const { return data_->plan().mesh.to_string(); }
std::vector<std::string> Engine::notices() const { return data_->plan().notices; }

std::vector<Port> Engine::inputs() const {
  std::vector<Port> ports;
  for (const Binding& b : data_->plan().programs.at(0).inputs) ports.push_back(port(b));
  return ports;
}

std::vector<Port> Engine::outputs() const {
  std::vector<Port> ports;
  for (const Binding& b : data_->plan().programs.at(0).outputs) ports.push_back(port(b));
  return ports;
}

std::vector<CollectiveReport> Engine::collectives() const {
  std::vector<CollectiveReport> reports;
  for (const CollectiveUse& use : data_->plan().collectives) {
    const Step& step = step_of(data_->plan(), use);
    reports.push_back({use.operation, use.reduce, use.axis, step.node, use.count.to_string(), use.bytes.to_string(), step.note});
  }
  return reports;
}

std::string Engine::describe() const {
  const Plan& plan = data_->plan();
  const Program& program = plan.programs.at(0);
  Json out = {{"tool", plan.tool}, {"device", plan.device}, {"mesh", plan.mesh.to_string()}, {"world_size", plan.world_size()},
              {"strategy", plan.strategy}, {"refittable", plan.refittable}, {"notices", plan.notices}, {"built_with", plan.built_with}};
  for (const char* key : {"inputs", "outputs", "steps", "collectives", "ranks"}) out[key] = Json::array();
  for (const Binding& b : program.inputs) out["inputs"].push_back(describe_port(b));
  for (const Binding& b : program.outputs) out["outputs"].push_back(describe_port(b));
  for (const Step& step : program.steps)
    out["steps"].push_back({{"op", step.op}, {"node", step.node}, {"kernel", step.kernel}, {"note", step.note}, {"microseconds", step.microseconds}});
  for (const CollectiveUse& use : plan.collectives) out["collectives"].push_back(describe_collective(plan, use));
  for (int rank = 0; rank < plan.world_size(); ++rank)
    out["ranks"].push_back({{"rank", rank}, {"weight_bytes", weight_bytes(plan)}, {"activation_bytes", activation_bytes(plan, rank)}});
  Json symbols = Json::object();
  for (const auto& [name, value] : typical_symbols(program)) symbols[name] = value;
  out["activation_bytes_for"] = symbols;
  return out.dump();
}

Arrays Engine::random_inputs(unsigned seed) const {
  const Program& program = data_->plan().programs.at(0);
  const SymbolValues symbols = typical_symbols(program);
  std::mt19937 generator(seed);
  std::uniform_real_distribution<double> real(-1, 1);
  Arrays arrays;
  for (const Binding& input : program.inputs) {
    Tensor tensor(input.type.dtype, bound_dims(input.type.dims, symbols));
    for (std::int64_t i = 0; i < tensor.count(); ++i)
      store_element(tensor.dtype(), tensor.mutable_data(), i, is_float(tensor.dtype()) ? real(generator) : static_cast<double>(generator() % 2));
    arrays[input.name] = to_array(tensor);
  }
  return arrays;
}

std::size_t Array::size_bytes() const { return bytes(dtype, element_count(shape)); }

Tensor to_tensor(const Array& array) { return Tensor(array.dtype, array.shape, array.data.get(), array.data); }

Array to_array(const Tensor& tensor) {
  const auto owner = std::make_shared<Tensor>(tensor);
  return {tensor.dtype(), tensor.shape(), std::shared_ptr<const std::byte>(owner, owner->data())};
}

}  // namespace tandem
