#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cstdio>

#include "cli/progress.h"
#include "cli/signals.h"
#include "cli/verbs.h"

namespace tandem::cli {

TeamOptions Common::team() const {
  TeamOptions options{.threads = threads,
                      .dependent_launch = !no_pdl,
                      .weight_budget_bytes = weight_budget,
                      .step_deadline_s = deadline,
                      .stop = stop_requested};
  if (isolate == "processes") options.rank_command = {"/proc/self/exe", std::string(kRankVerb)};
  return options;
}

std::string of_device(const std::string& name) {
  const std::vector<std::string> kinds = device_kinds();
  if (std::ranges::find(kinds, name) != kinds.end()) return "";
  return kinds.size() == 1 ? fmt::format("'{}' is not in this program, which has CPU ranks only: cpu", name)
                           : fmt::format("'{}' is none of {}", name, fmt::join(kinds, ", "));
}

std::string of_target(const std::string& name) {
  const std::size_t digits = name.find_first_not_of("0123456789", 3);
  const std::string rest = digits == std::string::npos ? "" : name.substr(digits);
  const bool gpu = name.starts_with("sm_") && name.size() > 3 + rest.size() && (rest.empty() || rest == "a" || rest == "f");
  const std::string reason = of_device(gpu ? "cuda" : "cpu");
  if (gpu ? reason.empty() : name == "cpu") return "";
  return gpu ? fmt::format("'{}' is not in this program, which has CPU ranks only: cpu", name)
             : fmt::format("'{}' is no target: cpu, or a GPU like sm_90a", name);
}

std::pair<std::string, std::string> name_and_value(const std::string& text, const std::string& option) {
  const std::size_t at = text.find('=');
  if (at == std::string::npos || at == 0) throw CLI::ValidationError(option, "'" + text + "' is not NAME=VALUE");
  return {text.substr(0, at), text.substr(at + 1)};
}

std::int64_t parse_size(const std::string& text, const std::string& option) {
  std::size_t used = 0;
  std::int64_t value = 0;
  try {
    value = std::stoll(text, &used);
  } catch (const std::exception&) {
    used = 0;
  }
  const std::string unit = text.substr(used);
  const int shift = unit.empty() || unit == "B" ? 0
                    : unit.starts_with('K')     ? 10
                    : unit.starts_with('M')     ? 20
                    : unit.starts_with('G')     ? 30
                                                : -1;
  if (used == 0 || value < 1 || shift < 0 || value > (std::int64_t{1} << 40 >> shift))
    throw CLI::ValidationError(option, "'" + text + "' is no size such as 4K or 1M");
  return value << shift;
}

void note(const Common& common, const std::string& text) {
  if (!common.quiet()) fmt::print(stderr, "tandem: {}\n", text);
}

void ModelArguments::add(CLI::App& app, bool mesh) {
  with_mesh = mesh;
  app.add_option("MODEL", model, "an .onnx file or an engine; {rank} in its name means a file per rank")->required();
  if (mesh) app.add_option("--mesh", build.mesh, "axes and their sizes, like tp=2,cp=2");
  app.add_option("--ranks", build.ranks, "how many ranks: of a model that is sharded already, or to find the cheapest mesh for")
      ->check(CLI::Range(1, 256));
  app.add_option("--strategy", strategies,
                 "auto, tp, cp or dp for all --ranks; AXIS=tp|cp|dp|explicit for an axis of another name, explicit: as --io and the file's "
                 "annotations say")
      ->delimiter(',');
  app.add_option(
      "--shape", shapes,
      "NAME=MIN:OPT:MAX or NAME=SHAPE, a shape is like 1x8; the second range of a NAME is for a second optimization profile, and so on");
  app.add_option("--io", ports, "NAME=SPEC for an input, output or weight that is to lie otherwise: same, local or DIM:AXIS[,DIM:AXIS…]");
  app.add_option("--dtype", build.dtype, "compute in this type; norms, softmax, inputs and outputs stay f32")
      ->check(CLI::IsMember({"f16", "bf16"}));
  app.add_option("--weights", build.weights, "quantise the matrices of products")->check(CLI::IsMember({"int8", "int4", "fp8"}));
  app.add_option("--channels-last", build.channels_last,
                 "images have their channels last: where 16-bit floats gain by it (default on GPUs), all, or none")
      ->check(CLI::IsMember({"auto", "all", "none"}));
  app.add_flag("--exact", build.exact, "no backend with weaker rounding or NaN rules; CPU ranks have none");
  app.add_flag("--tf32", build.tf32, "GPUs may round operands of f32 products and convolutions to TF32; not with --exact");
  app.add_option("--disable-pass", build.disabled_passes, "leave a pass out");
  app.add_option("--kernel", build.kernels, "a kernel to take wherever it can run, like attention_ring");
  app.add_option("--dump", build.dump, "folder for the graph after each pass");
}

void ModelArguments::add_running(CLI::App& app, Common& common) {
  app.add_option_function<std::string>(
         "--weight-budget",
         [&common](const std::string& text) { common.weight_budget = static_cast<std::size_t>(parse_size(text, "--weight-budget")); },
         "memory of a GPU that the weights of its rank may take, like 4GB; the others stay on the host and are copied as steps need them")
      ->type_name("SIZE");
  CLI::Option* timing = app.add_flag("--timing", build.timed,
                                     "choose among kernels by running them, in an engine where the build chose by rule; else by rule");
  app.add_option("--timing-cache", build.timing_cache, "file of measured kernel times, read and added to")->needs(timing);
}

// "auto", a strategy for all ranks, or AXIS=STRATEGY.
void ModelArguments::add_strategy(const std::string& text) {
  const bool for_axis = text.find('=') != std::string::npos;
  const auto [axis, strategy] = for_axis ? name_and_value(text, "--strategy") : std::pair<std::string, std::string>("", text);
  const bool known = strategy == "tp" || strategy == "cp" || strategy == "dp" || strategy == (for_axis ? "explicit" : "auto");
  if (!known)
    throw CLI::ValidationError("--strategy", "'" + strategy + "' is none of " + (for_axis ? "tp, cp, dp, explicit" : "auto, tp, cp, dp"));
  if (for_axis) {
    build.strategies[axis] = strategy;
    return;
  }
  if (!build.mesh.empty() || build.ranks < 1)
    throw CLI::ValidationError("--strategy", "'" + text + "' needs --ranks and no --mesh: it makes the mesh");
  if (strategy != "auto") build.mesh = fmt::format("{}={}", strategy, std::exchange(build.ranks, 0));
}

void ModelArguments::finish() {
  for (const std::string& text : strategies) add_strategy(text);
  for (const std::string& text : ports) build.io.insert(name_and_value(text, "--io"));
  add_shapes();
}

// An input that is named once has that range in all profiles; others have one for each.
void ModelArguments::add_shapes() {
  std::map<std::string, std::vector<std::string>> ranges;
  for (const std::string& text : shapes) {
    const auto [name, range] = name_and_value(text, "--shape");
    ranges[name].push_back(range);
  }
  std::size_t profiles = 1;
  for (const auto& [name, list] : ranges) profiles = std::max(profiles, list.size());
  if (profiles > 1) build.profiles.resize(profiles);
  for (const auto& [name, list] : ranges) {
    if (list.size() != 1 && list.size() != profiles)
      throw CLI::ValidationError(
          "--shape", fmt::format("'{}' has {} ranges, and another input has {}: give one for each optimization profile, or one for all",
                                 name, list.size(), profiles));
    if (list.size() == 1) build.shapes[name] = list[0];
    for (std::size_t p = 0; list.size() > 1 && p < profiles; ++p) build.profiles[p][name] = list[p];
  }
}

Engine ModelArguments::open(const Common& common) {
  finish();
  const bool shapes_build = build.exact || build.tf32 || !build.strategies.empty() || !shapes.empty() || !build.io.empty() ||
                            !build.dtype.empty() || !build.weights.empty() || !build.channels_last.empty() ||
                            !build.disabled_passes.empty() || !build.kernels.empty() || !build.dump.empty();
  if (is_engine_file(model) && shapes_build)
    throw CLI::ValidationError(model,
                               "is an engine: what shapes a program (--strategy, --shape, --io, --dtype, --weights, --channels-last, "
                               "--exact, --tf32, --disable-pass, --kernel, --dump) belongs to `tandem build`");
  build.threads = common.threads;
  build.device = common.device;
  build.dependent_launch = !common.no_pdl;
  build.progress = show_progress(common);
  Engine engine = open_model(model, build, common.load);
  build.progress = {};
  return engine;
}

}  // namespace tandem::cli
