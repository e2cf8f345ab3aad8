#include "runtime/rank_engine.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <set>

#include "core/check.h"
#include "device/code.h"
#include "ops/ops.h"
#include "plan/engine_file.h"
#include "plan/step_call.h"
#include "runtime/memory.h"
#include "runtime/rechoose.h"

namespace tandem {
namespace {

const OpDef& op_of(const Step& step) {
  const OpDef* op = all_ops().find(step.op);
  if (!op) fail(ErrorCode::invalid_engine, "this build has no op '{}'", step.op);
  return *op;
}

const KernelDef& kernel_of(const Step& step, const std::string& device) {
  const KernelDef* kernel = find_kernel(step.kernel);
  if (!kernel) fail(ErrorCode::invalid_engine, "this build has no kernel '{}'", step.kernel);
  if (kernel->device != device)
    fail(ErrorCode::invalid_engine, "kernel '{}' is for {}, the engine for {}", step.kernel, kernel->device, device);
  if (!kernel->op.empty() && kernel->op != step.op)
    fail(ErrorCode::invalid_engine, "kernel '{}' is for {}, not for {}", step.kernel, kernel->op, step.op);
  return *kernel;
}

// Edges and resident operands that the kernel does not know.
void check_edge(const Step& step, const KernelDef& kernel, const OpCall& call) {
  const auto refuse = [&](const std::string& why) {
    fail(ErrorCode::invalid_engine, "kernel '{}' of {} \"{}\" {}", step.kernel, step.op, step.node, why);
  };
  if (step.starts_early && !kernel.dependent) refuse("cannot start before the step before it has ended");
  for (const int operand : step.resident)
    if (!kernel.reads_early || !kernel.reads_early(call, static_cast<std::size_t>(operand)))
      refuse(fmt::format("does not read operand {} before it waits", operand));
}

// A plan from outside may name a kernel for what it cannot do.
void check_kernels(const Plan& plan) {
  if (!has_device_kind(plan.device))
    fail(ErrorCode::invalid_engine, "the engine is for '{}' devices, which this program was built without", plan.device);
  const bool compiled = brings_code(plan) || (plan.device == "cuda" && cuda_device_count() == 0);  // or nothing is to run here
  for (const Program& program : plan.programs)
    for (const Step& step : program.steps) {
      const KernelDef& kernel = kernel_of(step, plan.device);
      const OpCall call = call_of(program, step, op_of(step));
      const auto reason = refusal(kernel, call, plan.exact, compiled);
      if (reason) fail(ErrorCode::invalid_engine, "kernel '{}' cannot run {} \"{}\": {}", step.kernel, step.op, step.node, *reason);
      check_edge(step, kernel, call);
    }
}

// Makes the plan one that this program can run.
void settle_plan(EngineFile& file, bool strict) {
  if (const auto differences = library_differences(file.plan()); !differences.empty()) {
    if (strict)
      fail(ErrorCode::mismatch, "built with {}; without --strict the affected steps are chosen again", fmt::join(differences, "; "));
    Plan plan = file.plan();
    choose_again(plan);
    file.replace_plan(std::move(plan));
  }
  check_kernels(file.plan());
}

// The plan that `text` is instead of the file's, with the code that the file has.
void replace_plan(EngineFile& file, std::string_view text) {
  Plan plan = plan_from_json(text, all_ops());
  for (StoredCode& code : plan.code) {
    const auto stored = std::ranges::find(file.plan().code, code.digest, &StoredCode::digest);
    if (stored != file.plan().code.end()) code.bytes = stored->bytes;
  }
  file.replace_plan(std::move(plan));
  check_kernels(file.plan());
}

}  // namespace

// GPUs of one generation run what was chosen for another of it; what was chosen for "sm_90a" that one alone, for "sm_100f" no older one.
void check_target(const Plan& plan, const Device& device) {
  const auto found = plan.built_with.find("target");
  if (found == plan.built_with.end() || !found->second.starts_with("sm_")) return;
  const int wanted = sm_of_target(found->second), here = device.sm();
  const char suffix = found->second.back();
  const bool fits = suffix == 'a' ? wanted == here : suffix == 'f' ? runs_on(wanted, here) : wanted / 10 == here / 10;
  if (!fits)
    fail(ErrorCode::mismatch, "the engine was built for {}, this is {}: build it with --target {}, or without a target", found->second,
         device.name(), device.target());
}

EngineFile open_engine_file(const std::filesystem::path& path, bool strict) {
  EngineFile file = EngineFile::open(path, all_ops(), "");
  try {
    settle_plan(file, strict);
  } catch (const Error& error) {
    throw Error(error.code(), fmt::format("{}: {}", path.string(), error.message()));
  }
  return file;
}

EngineFile parse_engine_file(const Tensor& bytes, bool strict) {
  EngineFile file = EngineFile::parse(bytes.bytes(), std::make_shared<Tensor>(bytes), all_ops(), "");
  settle_plan(file, strict);
  return file;
}

std::shared_ptr<RankEngine> RankEngine::bare(std::shared_ptr<const Plan> plan, int rank) {
  std::shared_ptr<RankEngine> engine(new RankEngine);
  engine->plan_ = std::move(plan);
  engine->rank_ = rank;
  if (rank < 0 || rank >= engine->plan_->world_size())
    fail(ErrorCode::mismatch, "rank {} is outside a plan of {} ranks", rank, engine->plan_->world_size());
  for (const Program& program : engine->plan_->programs) {
    engine->kernels_.emplace_back();
    engine->ops_.emplace_back();
    engine->roots_.push_back(alias_roots(program));
    for (const Step& step : program.steps) {
      engine->kernels_.back().push_back(&kernel_of(step, engine->plan_->device));
      engine->ops_.back().push_back(&op_of(step));
    }
  }
  engine->digest_ = digest(*engine->plan_);
  engine->device_ = open_device(engine->plan_->device, rank);
  check_target(*engine->plan_, *engine->device_);
  return engine;
}

std::shared_ptr<const RankEngine> RankEngine::load(std::shared_ptr<const Plan> plan, int rank, const WeightSource& weights,
                                                   const LoadProgress& progress, std::optional<std::size_t> budget) {
  const std::shared_ptr<RankEngine> engine = bare(std::move(plan), rank);
  const OnDevice on_device(*engine->device_);
  for (const StoredCode& code : engine->plan_->code)
    if (code.bytes && runs_on(code.sm, engine->device_->sm())) offer_cuda_code(code.text, code.sm, code.bytes);
  engine->load_weights(weights, progress);
  if (budget) {
    engine->load_within(*budget, progress);
    return engine;
  }
  try {
    engine->load_whole(progress);
  } catch (const Error& error) {
    if (error.code() != ErrorCode::out_of_memory || engine->device_->is_host()) throw;
    throw Error(error.code(),
                error.message() +
                    "; with a weight budget (--weight-budget, weight_budget, weight_budget_bytes) weights that "
                    "have no room stay on the host and are copied when steps need them",
                error.node(), error.rank());
  }
  return engine;
}

std::shared_ptr<const RankEngine> RankEngine::open(const std::filesystem::path& engine_file, int rank, const LoadProgress& progress,
                                                   std::string_view plan_text, std::optional<std::size_t> budget) {
  EngineFile file = open_engine_file(engine_file);
  if (!plan_text.empty()) replace_plan(file, plan_text);
  return load(
      file.shared_plan(), rank, [&](const PlanWeight& weight, int of) { return file.map_weight(weight, of); }, progress, budget);
}

// Weights are the first half of the work, what kernels make of them the second.
void RankEngine::load_weights(const WeightSource& source, const LoadProgress& progress) {
  for (const PlanWeight& weight : plan_->weights) {
    Tensor data = source(weight, rank_);
    if (data.dtype() != weight.dtype || data.shape() != weight.shape)
      fail(ErrorCode::mismatch, "weight '{}' is {}{}, the plan has {}{}", weight.name, to_string(data.dtype()), to_string(data.shape()),
           to_string(weight.dtype), to_string(weight.shape));
    weights_.push_back(std::move(data));
    if (progress) progress(0.5 * static_cast<double>(weights_.size()) / static_cast<double>(plan_->weights.size()));
  }
}

OpCall RankEngine::call(std::size_t p, std::size_t s) const {
  return call_of(plan_->programs[p], plan_->programs[p].steps[s], *ops_[p][s]);
}

// The program of another profile in which the same step has the same weights for the same kernel, and so the same packed ones.
std::optional<std::size_t> RankEngine::packed_like(std::size_t p, std::size_t s) const {
  for (std::size_t q = 0; p < plan_->profiles() && q < p; ++q) {
    if (s >= kernels_[q].size() || kernels_[q][s] != kernels_[p][s] || weight_operands(q, s) != weight_operands(p, s)) continue;
    const OpCall mine = call(p, s), theirs = call(q, s);
    if (mine.attributes == theirs.attributes && mine.operands == theirs.operands && mine.results == theirs.results) return q;
  }
  return std::nullopt;
}

// Per operand: which weight it is; -1: none.
std::vector<int> RankEngine::weight_operands(std::size_t p, std::size_t s) const {
  std::vector<int> weights;
  for (const int v : plan_->programs[p].steps[s].operands) weights.push_back(v < 0 ? -1 : weight_of_value(p, v));
  return weights;
}

// A value may be another name of a weight.
int RankEngine::weight_of_value(std::size_t p, int v) const {
  return plan_->programs[p].values[static_cast<std::size_t>(roots_[p][static_cast<std::size_t>(v)])].weight;
}

std::size_t RankEngine::weight_bytes() const {
  std::size_t total = uploaded_.bytes();
  for (const Tensor& weight : weights_) total += weight.size_bytes();
  std::set<const Packed*> counted;
  for (const auto& program : packed_)
    for (const auto& packed : program) total += packed && counted.insert(packed.get()).second ? packed->size_bytes() : 0;
  return total;
}

int auxiliary_streams(const Plan& plan) {
  int most = 0;
  for (const Program& program : plan.programs)
    for (const Step& step : program.steps)
      if (const KernelDef* kernel = find_kernel(step.kernel)) most = std::max(most, kernel->auxiliary_streams);
  return most;
}

}  // namespace tandem
