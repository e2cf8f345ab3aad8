#include "api/build/compile.h"

#include <algorithm>
#include <set>

#include "api/build/auto.h"
#include "api/build/built_with.h"
#include "api/build/measure.h"
#include "api/run/engine_data.h"
#include "build/build.h"
#include "build/timing_cache.h"
#include "core/check.h"
#include "device/code.h"
#include "device/device.h"
#include "passes/pipeline.h"

namespace tandem {
namespace {

DType half_type(const std::string& word) {
  const DType dtype = parse_dtype(word);
  if (dtype != DType::f16 && dtype != DType::bf16)
    fail(ErrorCode::invalid_argument, "cannot compute in {} instead of f32; f16 and bf16 are possible", word);
  return dtype;
}

DType quantized_type(const std::string& word) {
  if (word == "int8") return DType::i8;
  if (word == "int4") return DType::i4;
  if (word == "fp8") return DType::f8e4m3;
  fail(ErrorCode::invalid_argument, "'{}' is no type of quantised weights; int8, int4 and fp8 are possible", word);
}

ChannelsLast channels_last(const std::string& word, const std::string& device) {
  if (word.empty()) return device == "cuda" ? ChannelsLast::where_it_saves : ChannelsLast::off;
  if (word == "none") return ChannelsLast::off;
  if (word == "auto") return ChannelsLast::where_it_saves;
  if (word == "all") return ChannelsLast::everywhere;
  fail(ErrorCode::invalid_argument, "convolutions with channels last: '{}' is none of auto, all and none", word);
}

// Says of inputs and outputs how they lie over the ranks that `draft.world` names.
void place_all(const Draft& draft) {
  Graph& graph = draft.module->main();
  draft.module->mesh = *draft.world;
  Sharding own;
  for (const MeshAxis& axis : draft.world->axes()) own.varying.push_back(axis.name);
  std::set<const Value*> placed;
  const auto place = [&](const std::string& name, Value& value, const std::map<std::string, Placement>& placements) {
    const auto found = placements.find(name);
    const Sharding& sharding = found == placements.end() ? own : found->second.sharding;
    if (!placed.insert(&value).second && value.sharding != sharding)
      fail(ErrorCode::unsupported, "'{}' is the same value as another input or output, but is placed otherwise: {} and {}", name,
           value.sharding.to_string(), sharding.to_string());
    value.sharding = sharding;
    if (found != placements.end()) graph.global_types[name] = found->second.global;
  };
  for (const auto& input : graph.inputs()) place(input->name(), *input, draft.inputs);
  for (const Graph::Output& output : graph.outputs()) place(output.name, *output.value, draft.outputs);
}

void tell(const BuildOptions& options, const std::string& what, double done) {
  if (options.progress) options.progress(what, done);
}

void compile(Draft& draft, const BuildOptions& options, bool same_program) {
  PipelineOptions pipeline;
  std::size_t passes = 0;
  pipeline.timing = [&](const Pass&, double, bool) {  // several times over where a mesh is chosen
    tell(options, "compiling " + draft.name, std::min(1.0, static_cast<double>(++passes) / static_cast<double>(all_passes().size())));
  };
  pipeline.pass.mesh = draft.world ? *draft.world : Mesh::parse(options.mesh);
  pipeline.pass.strategies = options.strategies;
  pipeline.pass.io = options.io;
  pipeline.pass.same_program = same_program;
  pipeline.pass.io.insert(draft.module->placements.begin(), draft.module->placements.end());  // what was asked for by hand stays
  if (!options.dtype.empty()) pipeline.pass.dtype = half_type(options.dtype);
  if (!options.weights.empty()) pipeline.pass.weights = quantized_type(options.weights);
  if (!options.device.empty()) pipeline.pass.device = options.device;
  pipeline.pass.channels_last = channels_last(options.channels_last, pipeline.pass.device);
  pipeline.disabled.insert(options.disabled_passes.begin(), options.disabled_passes.end());
  pipeline.dump = options.dump;
  if (draft.world) {
    pipeline.phases = {Phase::simplify, Phase::fuse};
    place_all(draft);
  } else if (options.ranks > 0 && options.mesh.empty()) {
    std::string notice;
    pipeline.pass.mesh = choose_mesh(*draft.module, pipeline, options.ranks, notice);
    draft.module->notices.push_back(notice);
  } else if (options.ranks > 0 && options.ranks != pipeline.pass.mesh.size()) {
    fail(ErrorCode::invalid_argument, "mesh {} has {} ranks, not {}", pipeline.pass.mesh.to_string(), pipeline.pass.mesh.size(),
         options.ranks);
  }
  if (options.tf32 && pipeline.pass.device != "cuda")
    draft.module->notices.push_back("TF32 changes nothing on CPU ranks: their products and convolutions of f32 are computed in f32");
  run_pipeline(*draft.module, pipeline);
  if (draft.world) place_all(draft);  // again: passes may have put other values in the place of outputs
}

PlanOptions plan_options(const Draft& draft, const BuildOptions& options, TimingCache& cache) {
  const int threads = threads_per_rank(options.threads, draft.module->mesh.size());
  PlanOptions plan;
  if (!options.device.empty()) plan.device = options.device;
  plan.strategy = options.mesh;
  plan.refittable = draft.module->folded_sources.empty();
  plan.exact = options.exact;
  plan.tf32 = options.tf32 && plan.device == "cuda";
  plan.dependent_launch = options.dependent_launch;
  plan.kernels = options.kernels;
  plan.built_with = built_with(options, threads);
  if (options.timed && (plan.device == "cpu" || cuda_device_count() > 0)) plan.measure = make_measure(plan.device, threads);
  if (plan.device == "cuda")
    plan.sm = !options.target.empty() ? sm_of_target(options.target) : cuda_device_count() > 0 ? open_device("cuda", 0)->sm() : 0;
  plan.cache = &cache;
  plan.machine = plan.measure ? machine_name(plan.device, threads) : machine_name(threads);
  plan.progress = [&options, name = draft.name](std::size_t step, std::size_t steps) {
    tell(options, "choosing kernels for " + name, static_cast<double>(step) / static_cast<double>(steps));
  };
  return plan;
}

}  // namespace

void require_one_precision(const BuildOptions& options) {
  if (options.exact && options.tf32)
    fail(ErrorCode::invalid_argument, "both exact and TF32 are asked for, but TF32 rounds operands of f32 products: leave one of them out");
}

Engine finish(std::vector<Draft> drafts, const BuildOptions& options) {
  const auto has_strategy = [&](const std::string& axis) {
    return options.strategies.contains(axis) || axis == "tp" || axis == "cp" || axis == "dp";
  };
  require_one_precision(options);
  if (!options.device.empty() && !has_device_kind(options.device)) open_device(options.device, 0);  // says why not
  const Mesh mesh = Mesh::parse(options.mesh);
  if (!drafts.at(0).world)
    for (const MeshAxis& axis : mesh.axes())
      if (!has_strategy(axis.name))
        fail(ErrorCode::invalid_argument, "mesh axis '{}' names no strategy (tp, cp, dp); give it one with --strategy", axis.name);
  TimingCache cache(options.timing_cache);
  auto data = std::make_shared<EngineData>();
  std::vector<std::shared_ptr<const Module>> modules;
  for (Draft& draft : drafts) {
    compile(draft, options, drafts.size() == 1);
    data->plans.push_back(std::make_shared<Plan>(build_plan(*draft.module, plan_options(draft, options, cache))));
    modules.push_back(std::move(draft.module));
  }
  cache.save();
  const Mesh built = data->plan().mesh;
  data->weights = [modules, built](const PlanWeight& weight, int rank) {
    const Module& module = *modules[modules.size() == 1 ? 0 : static_cast<std::size_t>(rank)];
    return run_recipe(
        *weight.recipe, [&](const std::string& name) { return module.source(name); }, coordinates(built, rank));
  };
  return Engine(std::move(data));
}

}  // namespace tandem
