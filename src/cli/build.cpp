// tandem build, tandem refit
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <chrono>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "cli/progress.h"
#include "cli/verbs.h"

namespace tandem::cli {
namespace {

using Json = nlohmann::json;
using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point begin) { return std::chrono::duration<double>(Clock::now() - begin).count(); }

// All files that `path` stands for.
std::uintmax_t size_on_disk(const std::string& path, int ranks) {
  const std::size_t word = path.find("{rank}");
  if (word == std::string::npos) return std::filesystem::file_size(path);
  std::uintmax_t total = 0;
  for (int rank = 0; rank < ranks; ++rank) total += std::filesystem::file_size(std::string(path).replace(word, 6, std::to_string(rank)));
  return total;
}

}  // namespace

Run add_build(CLI::App& app, Common& common) {
  struct State {
    ModelArguments model;
    std::string out, target;
    bool no_weights = false, no_timing = false;
  };
  auto state = std::make_shared<State>();
  state->model.add(app);
  app.add_option("-o,--output", state->out, "the engine file to write")->required();
  app.add_flag("--no-weights", state->no_weights, "leave the weights out; implies --refittable");
  app.add_flag("--refittable", state->model.build.refittable,
               "compute nothing with the contents of weights, so that `refit` reaches all of them");
  app.add_option("--target", state->target, "what the engine is to run on: cpu, or a GPU like sm_90a")->check(of_target);
  app.add_flag("--no-timing", state->no_timing, "choose kernels by rule: the same engine on every machine");
  app.add_option("--timing-cache", state->model.build.timing_cache, "file of measured kernel times, read and added to");
  return [state, &common] {
    const auto begin = Clock::now();
    state->model.finish();
    BuildOptions& options = state->model.build;
    options.refittable = options.refittable || state->no_weights;
    options.timed = !state->no_timing;
    options.threads = common.threads;
    options.device = common.device;
    options.dependent_launch = !common.no_pdl;
    if (state->target.starts_with("sm_")) options.device = "cuda", options.target = state->target;
    options.progress = show_progress(common);
    if (is_engine_file(state->model.model))
      throw Error(ErrorCode::invalid_argument, fmt::format("{} is an engine already", state->model.model));
    const Engine engine = build(state->model.model, options);
    engine.save(state->out, {.weights = !state->no_weights, .progress = options.progress});
    options.progress = {};
    for (const std::string& text : engine.notices()) note(common, text);
    const std::uintmax_t size = size_on_disk(state->out, engine.ranks());
    if (common.json)
      fmt::print("{}\n", Json{{"engine", state->out},
                              {"mesh", engine.mesh()},
                              {"ranks", engine.ranks()},
                              {"bytes", size},
                              {"weights", !state->no_weights},
                              {"collectives", engine.collectives().size()},
                              {"seconds", seconds_since(begin)}}
                             .dump());
    else
      fmt::print("built {} for {} rank{}{}: {:.1f} MiB{}, {} collectives, in {:.1f} s\n", state->out, engine.ranks(),
                 engine.ranks() == 1 ? "" : "s", engine.mesh().empty() ? "" : " (" + engine.mesh() + ")",
                 static_cast<double>(size) / (1 << 20), state->no_weights ? " without weights" : "", engine.collectives().size(),
                 seconds_since(begin));
    return 0;
  };
}

Run add_refit(CLI::App& app, Common& common) {
  struct State {
    std::string engine, out;
    std::vector<std::string> weights;
  };
  auto state = std::make_shared<State>();
  app.add_option("ENGINE", state->engine, "an engine file, with or without weights")->required();
  app.add_option("-w,--weights", state->weights, "safetensors files, or the .onnx file, with tensors under the names of the model")
      ->required();
  app.add_option("-o,--output", state->out, "the engine file to write")->required();
  return [state, &common] {
    const RefitReport report = refit(state->engine, state->weights, state->out, show_progress(common));
    if (common.json)
      fmt::print("{}\n",
                 Json{{"engine", state->out}, {"refitted", report.refitted}, {"kept", report.kept}, {"unused", report.unused}}.dump());
    else fmt::print("wrote {}: {} weights refitted, {} kept\n", state->out, report.refitted, report.kept);
    if (!report.unused.empty())
      note(common, fmt::format("{} tensors have no place in the engine, like {}", report.unused.size(), report.unused.front()));
    return 0;
  };
}

}  // namespace tandem::cli
