// tandem verify
#include <fmt/format.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "cli/progress.h"
#include "cli/verbs.h"

namespace tandem::cli {
namespace {

using Json = nlohmann::json;

// JSON has no NaN and no infinity.
Json number(double value) { return std::isfinite(value) ? Json(value) : Json(fmt::format("{}", value)); }

Json to_json(const MeshCheck& check) {
  Json out = {{"mesh", check.mesh},
              {"passed", check.passed},
              {"notices", check.notices},
              {"outputs", Json::array()},
              {"collectives", Json::array()}};
  if (!check.error.empty()) out["error"] = check.error;
  for (const OutputCheck& o : check.outputs)
    out["outputs"].push_back({{"name", o.name},
                              {"reference", o.reference},
                              {"absolute", number(o.absolute)},
                              {"relative", number(o.relative)},
                              {"tolerance", o.tolerance},
                              {"passed", o.passed},
                              {"note", o.note}});
  for (const CollectiveReport& c : check.collectives)
    out["collectives"].push_back({{"operation", c.operation},
                                  {"reduce", c.reduce},
                                  {"axis", c.axis},
                                  {"node", c.node},
                                  {"count", c.count},
                                  {"bytes", c.bytes},
                                  {"note", c.note}});
  return out;
}

void print(const MeshCheck& check) {
  fmt::print("{} {}{}\n", check.passed ? "passed" : "FAILED", check.mesh.empty() ? "one rank" : check.mesh,
             check.error.empty() ? "" : ": " + check.error);
  for (const OutputCheck& o : check.outputs)
    fmt::print("  {} {} against {}: absolute {:.2e}, relative {:.2e}, allowed {:.0e}{}\n", o.passed ? "ok " : "BAD", o.name, o.reference,
               o.absolute, o.relative, o.tolerance, o.note.empty() ? "" : " (" + o.note + ")");
  for (const CollectiveReport& c : check.collectives)
    fmt::print("  {}{}{} over {}: {} bytes a rank, {}\n", c.operation, c.reduce.empty() ? "" : " ", c.reduce,
               c.axis.empty() ? "ranks" : c.axis, c.bytes, c.node);
}

}  // namespace

Run add_verify(CLI::App& app, Common& common) {
  struct State {
    ModelArguments model;
    VerifyOptions options;
  };
  auto state = std::make_shared<State>();
  state->model.add(app, false);
  state->model.add_running(app, common);
  app.add_option("--mesh", state->options.meshes, "a mesh to compare; may be given again")->allow_extra_args(false);
  app.add_option("--cases", state->options.cases, "recorded cases: case0.input.NAME, case0.output.NAME, …");
  return [state, &common] {
    state->model.finish();
    state->options.build = state->model.build;
    state->options.build.device = common.device;
    state->options.build.threads = common.threads;
    if (std::string& mesh = state->options.build.mesh; !mesh.empty())
      state->options.meshes.push_back(std::exchange(mesh, {}));  // by --strategy
    state->options.ranks = std::exchange(state->options.build.ranks, 0);
    state->options.team = common.team();
    state->options.build.progress = show_progress(common);
    const std::vector<MeshCheck> checks = verify(state->model.model, state->options);
    state->options.build.progress = {};
    bool passed = true;
    Json results = Json::array();
    for (const MeshCheck& check : checks) {
      passed = passed && check.passed;
      if (common.json) results.push_back(to_json(check));
      else print(check);
    }
    if (common.json) fmt::print("{}\n", Json{{"results", results}, {"passed", passed}}.dump());
    return passed ? 0 : 1;
  };
}

}  // namespace tandem::cli
