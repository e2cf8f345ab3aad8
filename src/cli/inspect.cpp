// tandem inspect
#include <fmt/format.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "cli/inspect.h"
#include "cli/verbs.h"

namespace tandem::cli {
namespace {

using Json = nlohmann::json;

std::string text(const Json& value) { return value.is_string() ? value.get<std::string>() : value.dump(); }

void print(const Json& report) {
  fmt::print("mesh {} of {} ranks, device {}, {}\n", text(report["mesh"]), text(report["world_size"]), text(report["device"]), text(report["tool"]));
  for (const char* kind : {"inputs", "outputs"}) {
    fmt::print("{}\n", kind);
    for (const Json& port : report[kind]) {
      std::string shape;
      for (const Json& extent : port["shape"]) shape += (shape.empty() ? "" : ",") + text(extent);
      fmt::print("  {} {}[{}] {}\n", text(port["name"]), text(port["dtype"]), shape, text(port["sharding"]));
    }
  }
  fmt::print("steps\n");
  for (const Json& step : report["steps"])
    fmt::print("  {} \"{}\" by {}{}\n", text(step["op"]), text(step["node"]), text(step["kernel"]), step["note"] == "" ? "" : ": " + text(step["note"]));
  fmt::print("collectives\n");
  for (const Json& use : report["collectives"])
    fmt::print("  {} {} over {}: {} bytes a rank, {}\n", text(use["operation"]), text(use["dtype"]), text(use["axis"]), text(use["bytes"]), text(use["node"]));
  for (const Json& rank : report["ranks"])
    fmt::print("rank {}: {} bytes of weights, {} bytes of activations\n", text(rank["rank"]), text(rank["weight_bytes"]), text(rank["activation_bytes"]));
  for (const Json& notice : report["notices"]) fmt::print("notice: {}\n", text(notice));
}

}  // namespace

Run add_inspect(CLI::App& app, Common& common) {
  struct State {
    ModelArguments model;
    std::string html;
  };
  auto state = std::make_shared<State>();
  state->model.add(app);
  app.add_option("--html", state->html, "write the report as a page to this file");
  return [state, &common] {
    const std::string report = state->model.open().describe();
    if (!state->html.empty()) {
      std::ofstream file(state->html);
      file << inspect_page(state->model.model, Json::parse(report));
      if (!file.flush()) throw Error(ErrorCode::io, fmt::format("cannot write {}", state->html));
    }
    if (common.json) fmt::print("{}\n", report);
    else print(Json::parse(report));
    return 0;
  };
}

}  // namespace tandem::cli
