#include <cstring>
#include <random>

#include "api/run/engine_data.h"
#include "core/check.h"
#include "plan/measured.h"
#include "plan/typical.h"
#include "runtime/symbols.h"

namespace tandem {
namespace {

// A measured extent may be 0, and counts as the most that it can be otherwise.
Shape extents_at(const Program& program, const std::vector<Dim>& dims, std::int64_t SymbolRange::*bound) {
  SymbolValues symbols;
  for (const auto& [name, range] : program.profiles.at(0)) symbols[name] = range.*bound;  // each program has one
  const MeasuredList measured = measured_of(program);
  bind_to_bounds(measured, symbols);
  if (bound != &SymbolRange::min) return largest_dims(measured, dims, symbols);
  for (const Measured& m : measured) symbols[m.symbol] = 0;
  return bound_dims(dims, symbols);
}

Port port(const Program& program, const Binding& binding) {
  Port out{binding.name, binding.type.dtype, {}, binding.sharding.to_string(), !binding.sharding.varying.empty()};
  for (const Dim& dim : binding.type.dims) out.shape.push_back(dim.to_string());
  const std::vector<Dim>& local = program.values.at(static_cast<std::size_t>(binding.value)).type.dims;
  for (const Dim& dim : local) out.local_shape.push_back(dim.to_string());
  for (const auto bound : {&SymbolRange::min, &SymbolRange::opt, &SymbolRange::max}) {
    out.local_range.push_back(extents_at(program, local, bound));
    out.range.push_back(extents_at(program, binding.type.dims, bound));
  }
  return out;
}

const Program& program_of(const Plan& plan, int profile) {
  check_profile(plan, profile);
  return plan.programs[static_cast<std::size_t>(profile)];
}

const Step& step_of(const Plan& plan, const CollectiveUse& use) {
  return plan.programs.at(static_cast<std::size_t>(use.program)).steps.at(static_cast<std::size_t>(use.step));
}

constexpr std::size_t kReserve = std::size_t{256} << 20;  // of a GPU's memory, for libraries and what they load

}  // namespace

std::shared_ptr<const RankEngine> EngineData::rank_engine(int rank, const LoadProgress& progress, WeightBudget budget) const {
  const std::lock_guard lock(loaded.mutex);
  const std::pair key(rank, budget);
  if (auto known = loaded.by_rank[key].lock()) return known;
  auto made = RankEngine::load(plan_of(rank), rank, weights, progress, budget);
  loaded.by_rank[key] = made;
  return made;
}

void EngineData::check_budget(WeightBudget budget) const {
  if (budget && plan().device == "cpu")
    fail(ErrorCode::unsupported,
         "a weight budget is for ranks on GPUs: ranks of the CPU read their weights where the file is mapped, and nothing is copied");
}

void EngineData::require_weights() const {
  if (!has_weights) fail(ErrorCode::mismatch, "{} was written without weights; give it some with tandem refit", path);
}

void EngineData::require_target() const { check_target(plan(), *open_device(plan().device, 0)); }

int Engine::ranks() const { return data_->plan().world_size(); }

std::string Engine::device() const { return data_->plan().device; }
std::string Engine::mesh() const { return data_->plan().mesh.to_string(); }
std::vector<std::string> Engine::notices() const { return data_->plan().notices; }

int Engine::profiles() const { return static_cast<int>(data_->plan().profiles()); }

std::vector<Port> Engine::inputs(int profile) const {
  std::vector<Port> ports;
  const Program& program = program_of(data_->plan(), profile);
  for (const Binding& b : program.inputs) ports.push_back(port(program, b));
  return ports;
}

std::vector<Port> Engine::outputs(int profile) const {
  std::vector<Port> ports;
  const Program& program = program_of(data_->plan(), profile);
  for (const Binding& b : program.outputs) ports.push_back(port(program, b));
  return ports;
}

std::vector<CollectiveReport> Engine::collectives() const {
  std::vector<CollectiveReport> reports;
  for (const CollectiveUse& use : data_->plan().collectives) {
    if (use.program != 0) continue;  // those of other profiles are the same
    const Step& step = step_of(data_->plan(), use);
    reports.push_back({use.operation, use.reduce, use.axis, step.node, use.count.to_string(), use.bytes.to_string(), step.note});
  }
  return reports;
}

WeightMemory Engine::weight_memory(std::optional<std::size_t> budget, int rank) const {
  data_->check_budget(budget.value_or(0));
  if (rank < 0 || rank >= ranks()) fail(ErrorCode::invalid_argument, "there is no rank {} of {}", rank, ranks());
  const WeightSizes sizes = RankEngine::weigh(data_->plan_of(rank), rank, budget);
  return {sizes.bytes, sizes.least_budget, sizes.ring_bytes, sizes.streamed_bytes};
}

std::size_t Engine::automatic_weight_budget(int rank) const {
  const WeightMemory weights = weight_memory({}, rank);
  const std::size_t free = open_device(data_->plan().device, rank)->free_bytes(), taken = activation_bytes() + kReserve;
  return std::clamp(free > taken ? free - taken : 0, weights.least_budget, weights.bytes);
}

Arrays Engine::random_inputs(unsigned seed, int profile) const {
  const Program& program = program_of(data_->plan(), profile);
  const SymbolValues symbols = typical_symbols(program);
  std::mt19937 generator(seed);
  std::uniform_real_distribution<double> real(-1, 1);
  Arrays arrays;
  for (const Binding& input : program.inputs) {
    Tensor tensor(input.type.dtype, bound_dims(input.type.dims, symbols));
    for (std::int64_t i = 0; i < tensor.count(); ++i)
      store_element(tensor.dtype(), tensor.mutable_data(), i,
                    is_float(tensor.dtype()) ? real(generator) : static_cast<double>(generator() % 2));
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
