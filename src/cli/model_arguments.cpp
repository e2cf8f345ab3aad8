#include <fmt/format.h>

#include <cstdio>

#include "cli/signals.h"
#include "cli/verbs.h"

namespace tandem::cli {

TeamOptions Common::team() const {
  TeamOptions options{.threads = threads, .step_deadline_s = deadline, .stop = stop_requested};
  if (isolate == "processes") options.rank_command = {"/proc/self/exe", std::string(kRankVerb)};
  return options;
}

std::pair<std::string, std::string> name_and_value(const std::string& text, const std::string& option) {
  const std::size_t at = text.find('=');
  if (at == std::string::npos || at == 0) throw CLI::ValidationError(option, "'" + text + "' is not NAME=VALUE");
  return {text.substr(0, at), text.substr(at + 1)};
}

void note(const Common& common, const std::string& text) {
  if (!common.quiet()) fmt::print(stderr, "tandem: {}\n", text);
}

void ModelArguments::add(CLI::App& app, bool mesh) {
  with_mesh = mesh;
  app.add_option("MODEL", model, "an .onnx file; {rank} in its name means a file per rank")->required();
  if (mesh) app.add_option("--mesh", build.mesh, "axes and their sizes, like tp=2,cp=2");
  app.add_option("--ranks", build.ranks, "ranks of a model that is sharded already")->check(CLI::Range(1, 256));
  app.add_option("--strategy", strategies, "AXIS=tp|cp|dp for axes of another name")->delimiter(',');
  app.add_option("--shape", shapes, "NAME=MIN:OPT:MAX or NAME=SHAPE, a shape is like 1x8");
  app.add_option("--disable-pass", build.disabled_passes, "leave a pass out");
  app.add_option("--dump", build.dump, "folder for the graph after each pass");
}

void ModelArguments::finish() {
  for (const std::string& text : strategies) {
    const auto [axis, strategy] = name_and_value(text, "--strategy");
    if (strategy != "tp" && strategy != "cp" && strategy != "dp") throw CLI::ValidationError("--strategy", "'" + strategy + "' is none of tp, cp, dp");
    build.strategies[axis] = strategy;
  }
  for (const std::string& text : shapes) build.shapes.insert(name_and_value(text, "--shape"));
}

Engine ModelArguments::open() {
  finish();
  return tandem::build(model, build);
}

}  // namespace tandem::cli
