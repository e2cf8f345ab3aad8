#include "tandem/build.h"

#include <charconv>
#include <thread>

#include "api/build/auto.h"
#include "api/build/built_with.h"
#include "api/build/measure.h"
#include "api/build/plain_run.h"
#include "api/run/engine_data.h"
#include "api/run/rank_path.h"
#include "build/build.h"
#include "build/timing_cache.h"
#include "core/check.h"
#include "import/onnx/import.h"
#include "passes/pipeline.h"

namespace tandem {
namespace {

std::int64_t whole_number(std::string_view text, std::string_view of) {
  std::int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc{} || end != text.data() + text.size() || value < 0) fail(ErrorCode::invalid_argument, "'{}' in shape '{}' is no extent", text, of);
  return value;
}

std::vector<std::string_view> split(std::string_view text, char by) {
  std::vector<std::string_view> parts;
  for (;;) {
    const std::size_t at = text.find(by);
    parts.push_back(text.substr(0, at));
    if (at == std::string_view::npos) return parts;
    text.remove_prefix(at + 1);
  }
}

// "1x8" or "1x8:4x128:16x512".
std::vector<SymbolRange> parse_shape(std::string_view text) {
  const auto parts = split(text, ':');
  if (parts.size() != 1 && parts.size() != 3) fail(ErrorCode::invalid_argument, "shape '{}' is neither SHAPE nor MIN:OPT:MAX", text);
  std::vector<SymbolRange> ranges;
  for (std::size_t p = 0; p < 3; ++p) {
    const auto extents = split(parts[parts.size() == 1 ? 0 : p], 'x');
    ranges.resize(p == 0 ? extents.size() : ranges.size());
    if (extents.size() != ranges.size()) fail(ErrorCode::invalid_argument, "the parts of shape '{}' have different ranks", text);
    for (std::size_t i = 0; i < extents.size(); ++i)
      (p == 0 ? ranges[i].min : p == 1 ? ranges[i].opt : ranges[i].max) = whole_number(extents[i], text);
  }
  return ranges;
}

DType half_type(const std::string& word) {
  const DType dtype = parse_dtype(word);
  if (dtype != DType::f16 && dtype != DType::bf16) fail(ErrorCode::invalid_argument, "cannot compute in {} instead of f32; f16 and bf16 are possible", word);
  return dtype;
}

bool is_presharded(const Module& module) {
  for (const auto& node : module.main().nodes())
    if (communicates(*node)) return true;
  return false;
}

// Every rank has its own inputs and outputs.
void mark_varying(Module& module, int ranks) {
  module.mesh = Mesh({{"rank", ranks}});
  for (const auto& input : module.main().inputs()) input->sharding.varying = {"rank"};
  for (auto& output : module.main().outputs()) output.value->sharding.varying = {"rank"};
}

void tell(const BuildOptions& options, const std::string& what, double done) {
  if (options.progress) options.progress(what, done);
}

std::unique_ptr<Module> compile(const std::string& path, const BuildOptions& options, const Mesh& mesh, bool per_rank) {
  ImportOptions import;
  import.world_size = options.ranks > 0 ? options.ranks : 1;
  import.shapes = parse_shapes(options.shapes);
  import.refittable = options.refittable;
  import.mesh = mesh;
  tell(options, "reading " + path, 0);
  std::unique_ptr<Module> module = import_onnx(std::filesystem::path(path), import);
  PipelineOptions pipeline;
  std::size_t passes = 0;
  pipeline.timing = [&](const Pass&, double, bool) {  // several times over where a mesh is chosen
    tell(options, "compiling " + path, std::min(1.0, static_cast<double>(++passes) / static_cast<double>(all_passes().size())));
  };
  pipeline.pass.mesh = mesh;
  pipeline.pass.strategies = options.strategies;
  pipeline.pass.io = options.io;
  pipeline.pass.io.insert(module->placements.begin(), module->placements.end());  // what was asked for by hand stays
  if (!options.dtype.empty()) pipeline.pass.dtype = half_type(options.dtype);
  pipeline.disabled.insert(options.disabled_passes.begin(), options.disabled_passes.end());
  pipeline.dump = options.dump;
  if (per_rank || is_presharded(*module)) {
    if (options.ranks < 1) fail(ErrorCode::invalid_argument, "{} is sharded already; say for how many ranks with --ranks", path);
    pipeline.phases = {Phase::simplify, Phase::fuse};
    pipeline.pass.mesh = Mesh({{"rank", options.ranks}});
    mark_varying(*module, options.ranks);
  } else if (options.ranks > 0 && options.mesh.empty()) {
    std::string notice;
    pipeline.pass.mesh = choose_mesh(*module, pipeline, options.ranks, notice);
    module->notices.push_back(notice);
  } else if (options.ranks > 0 && options.ranks != mesh.size()) {
    fail(ErrorCode::invalid_argument, "mesh {} has {} ranks, not {}", mesh.to_string(), mesh.size(), options.ranks);
  }
  const bool varying = pipeline.phases.count(Phase::shard) == 0;
  run_pipeline(*module, pipeline);
  if (varying) mark_varying(*module, options.ranks);  // again: passes may have put other values in the place of outputs
  return module;
}

PlanOptions plan_options(const Module& module, const BuildOptions& options, const std::string& file, TimingCache& cache) {
  const int cores = std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
  const int threads = options.threads > 0 ? options.threads : std::max(1, cores / module.mesh.size());
  PlanOptions plan;
  plan.strategy = options.mesh;
  plan.refittable = module.folded_sources.empty();
  plan.exact = options.exact;
  plan.kernels = options.kernels;
  plan.built_with = built_with(options, threads);
  if (options.timed) plan.measure = make_measure(threads);
  plan.cache = &cache;
  plan.machine = machine_name(threads);
  plan.progress = [&options, file](std::size_t step, std::size_t steps) {
    tell(options, "choosing kernels for " + file, static_cast<double>(step) / static_cast<double>(steps));
  };
  return plan;
}

}  // namespace

std::map<std::string, std::vector<SymbolRange>> parse_shapes(const std::map<std::string, std::string>& shapes) {
  std::map<std::string, std::vector<SymbolRange>> ranges;
  for (const auto& [name, text] : shapes) ranges[name] = parse_shape(text);
  return ranges;
}

Engine build(const std::string& path, const BuildOptions& options) {
  const Mesh mesh = Mesh::parse(options.mesh);
  for (const MeshAxis& axis : mesh.axes())
    if (!options.strategies.contains(axis.name) && axis.name != "tp" && axis.name != "cp" && axis.name != "dp")
      fail(ErrorCode::invalid_argument, "mesh axis '{}' names no strategy (tp, cp, dp); give it one with --strategy", axis.name);
  const bool per_rank = is_per_rank(path);
  if (per_rank && options.ranks < 1) fail(ErrorCode::invalid_argument, "{} names a file per rank; say how many with --ranks", path);
  TimingCache cache(options.timing_cache);
  auto data = std::make_shared<EngineData>();
  std::vector<std::shared_ptr<const Module>> modules;
  for (int rank = 0; rank < (per_rank ? options.ranks : 1); ++rank) {
    const std::string file = path_of_rank(path, rank);
    std::shared_ptr<Module> module = compile(file, options, mesh, per_rank);
    data->plans.push_back(std::make_shared<Plan>(build_plan(*module, plan_options(*module, options, file, cache))));
    modules.push_back(std::move(module));
  }
  cache.save();
  const Mesh built = data->plan().mesh;
  data->weights = [modules, built](const PlanWeight& weight, int rank) {
    const Module& module = *modules[modules.size() == 1 ? 0 : static_cast<std::size_t>(rank)];
    return run_recipe(*weight.recipe, [&](const std::string& name) { return module.source(name); }, coordinates(built, rank));
  };
  return Engine(std::move(data));
}

Engine open_model(const std::string& path, const BuildOptions& options, const LoadOptions& load) {
  if (!is_engine_file(path)) return build(path, options);
  Engine engine = load_engine(path, load);
  if (!options.mesh.empty() && Mesh::parse(options.mesh) != engine.data().plan().mesh)
    fail(ErrorCode::mismatch, "{} is built for mesh {}, asked for is {}", path, engine.mesh().empty() ? "of one rank" : engine.mesh(), options.mesh);
  if (options.ranks > 0 && options.ranks != engine.ranks())
    fail(ErrorCode::mismatch, "{} is built for {} ranks, asked for are {}", path, engine.ranks(), options.ranks);
  return engine;
}

}  // namespace tandem
