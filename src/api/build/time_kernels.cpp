// Times for an engine whose kernels were chosen by rule.
#include "api/build/built_with.h"
#include "api/build/measure.h"
#include "api/run/engine_data.h"
#include "build/retime.h"
#include "device/code.h"
#include "device/device.h"
#include "tandem/build.h"

namespace tandem {
namespace {

// What the plan brings compiled need not be compiled again to be timed.
void offer_code(const Plan& plan, int sm) {
  for (const StoredCode& code : plan.code)
    if (code.bytes && runs_on(code.sm, sm)) offer_cuda_code(code.text, code.sm, code.bytes);
}

PlanOptions plan_options(const Plan& plan, const TimingOptions& options, const std::string& name, int threads, TimingCache& cache) {
  const RecordedBuild build = recorded_build(plan.built_with);
  PlanOptions out;
  out.kernels = build.kernels;
  out.dependent_launch = build.dependent_launch;
  out.measure = make_measure(plan.device, threads);
  out.cache = &cache;
  out.machine = machine_name(plan.device, threads);
  if (plan.device == "cuda") out.sm = open_device(plan.device, 0)->sm();
  out.progress = [&options, name](std::size_t step, std::size_t steps) {
    if (options.progress) options.progress("choosing kernels for " + name, static_cast<double>(step) / static_cast<double>(steps));
  };
  return out;
}

}  // namespace

Engine time_kernels(const Engine& engine, const TimingOptions& options) {
  const EngineData& given = engine.data();
  given.require_weights();
  given.require_target();
  const int threads = threads_per_rank(options.threads, engine.ranks());
  const std::string name = given.path.empty() ? "the engine" : given.path;
  TimingCache cache(options.timing_cache);
  auto data = std::make_shared<EngineData>(given);
  int timed = 0;
  for (std::shared_ptr<const Plan>& plan : data->plans) {
    Plan changed = *plan;
    const PlanOptions how = plan_options(changed, options, name, threads, cache);
    offer_code(changed, how.sm);
    const int steps = retime(changed, how);
    if (steps == 0) continue;
    timed += steps;
    record_timing(changed.built_with, changed.device, threads);
    plan = std::make_shared<const Plan>(std::move(changed));
  }
  cache.save();
  if (timed == 0) return engine;
  data->own_plan = true;
  return Engine(std::move(data));
}

}  // namespace tandem
