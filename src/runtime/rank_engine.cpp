#include "runtime/rank_engine.h"

#include "core/check.h"
#include "ops/ops.h"
#include "plan/engine_file.h"
#include "runtime/memory.h"

namespace tandem {

std::shared_ptr<const RankEngine> RankEngine::load(std::shared_ptr<const Plan> plan, int rank, const WeightSource& weights) {
  std::shared_ptr<RankEngine> engine(new RankEngine);
  engine->plan_ = std::move(plan);
  engine->rank_ = rank;
  if (rank < 0 || rank >= engine->plan_->world_size())
    fail(ErrorCode::mismatch, "rank {} is outside a plan of {} ranks", rank, engine->plan_->world_size());
  for (const Program& program : engine->plan_->programs) {
    engine->kernels_.emplace_back();
    engine->ops_.emplace_back();
    for (const Step& step : program.steps) {
      const KernelDef* kernel = find_kernel(step.kernel);
      const OpDef* op = all_ops().find(step.op);
      if (!kernel || !op) fail(ErrorCode::invalid_engine, "this build has no {} '{}'", kernel ? "op" : "kernel", kernel ? step.op : step.kernel);
      engine->kernels_.back().push_back(kernel);
      engine->ops_.back().push_back(op);
    }
  }
  engine->load_weights(weights);
  engine->pack_all();
  return engine;
}

std::shared_ptr<const RankEngine> RankEngine::open(const std::filesystem::path& engine_file, int rank) {
  const EngineFile file = EngineFile::open(engine_file, all_ops());
  return load(file.shared_plan(), rank, [&](const PlanWeight& weight, int of) { return file.map_weight(weight, of); });
}

void RankEngine::load_weights(const WeightSource& source) {
  for (const PlanWeight& weight : plan_->weights) {
    Tensor data = source(weight, rank_);
    if (data.dtype() != weight.dtype || data.shape() != weight.shape)
      fail(ErrorCode::mismatch, "weight '{}' is {}{}, the plan has {}{}", weight.name, to_string(data.dtype()), to_string(data.shape()),
           to_string(weight.dtype), to_string(weight.shape));
    weights_.push_back(std::move(data));
  }
}

OpCall RankEngine::call(std::size_t p, std::size_t s) const {
  const Program& program = plan_->programs[p];
  const Step& step = program.steps[s];
  const auto type = [&](int value) { return program.values[static_cast<std::size_t>(value)].type; };
  OpCall call{ops_[p][s], step.attributes, {}, {}};
  for (int v : step.operands) call.operands.push_back(v < 0 ? std::nullopt : std::optional(type(v)));
  for (int v : step.results) call.results.push_back(type(v));
  return call;
}

// Marks in `read_plain` the weights that this step still reads as they are.
void RankEngine::pack_step(std::size_t p, std::size_t s, std::vector<bool>& read_plain) {
  const Program& program = plan_->programs[p];
  const Step& step = program.steps[s];
  const KernelDef& kernel = *kernels_[p][s];
  const std::vector<int> root = alias_roots(program);
  std::vector<const std::byte*> pointers;
  std::vector<int> numbers;
  for (int v : step.operands) {
    const int weight = v < 0 ? -1 : program.values[static_cast<std::size_t>(root[static_cast<std::size_t>(v)])].weight;
    numbers.push_back(weight);
    pointers.push_back(weight < 0 ? nullptr : weights_[static_cast<std::size_t>(weight)].data());
  }
  const OpCall bare = call(p, s);
  if (kernel.pack) packed_[p].back() = kernel.pack(bare, pointers);
  for (std::size_t i = 0; i < numbers.size(); ++i) {
    const bool copied = packed_[p].back() && kernel.packs_operand && kernel.packs_operand(bare, i);
    if (numbers[i] >= 0 && !copied) read_plain[static_cast<std::size_t>(numbers[i])] = true;
  }
}

void RankEngine::pack_all() {
  std::vector<bool> read_plain(weights_.size(), false);
  for (std::size_t p = 0; p < plan_->programs.size(); ++p) {
    const Program& program = plan_->programs[p];
    packed_.emplace_back();
    for (std::size_t s = 0; s < program.steps.size(); ++s) {
      packed_[p].emplace_back();
      pack_step(p, s, read_plain);
    }
    const std::vector<int> root = alias_roots(program);
    for (const Binding& output : program.outputs)
      if (const int weight = program.values[static_cast<std::size_t>(root[static_cast<std::size_t>(output.value)])].weight; weight >= 0)
        read_plain[static_cast<std::size_t>(weight)] = true;
  }
  for (std::size_t w = 0; w < weights_.size(); ++w)
    if (!read_plain[w]) weights_[w] = Tensor();
}

std::size_t RankEngine::weight_bytes() const {
  std::size_t total = 0;
  for (const Tensor& weight : weights_) total += weight.size_bytes();
  for (const auto& program : packed_)
    for (const auto& packed : program) total += packed ? packed->size_bytes() : 0;
  return total;
}

}  // namespace tandem
