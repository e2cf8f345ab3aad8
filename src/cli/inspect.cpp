// tandem inspect
#include <fmt/format.h>

#include <charconv>
#include <nlohmann/json.hpp>

#include "cli/report.h"
#include "cli/verbs.h"

namespace tandem::cli {
namespace {

using Json = nlohmann::json;

void print_ports(const Json& report) {
  for (const char* kind : {"inputs", "outputs"}) {
    fmt::print("{}\n", kind);
    for (const Json& port : report[kind])
      fmt::print("  {} {}[{}] {}\n", text(port["name"]), text(port["dtype"]), joined(port["shape"]), text(port["sharding"]));
  }
}

std::string range_text(const Json& range) {
  std::string out;
  for (const Json& shape : range) {
    out += out.empty() ? "" : ":";
    for (std::size_t d = 0; d < shape.size(); ++d) out += (d == 0 ? "" : "x") + text(shape[d]);
  }
  return out;
}

// Where there are several.
void print_profiles(const Json& report) {
  if (report["profiles"].size() < 2) return;
  for (std::size_t p = 0; p < report["profiles"].size(); ++p) {
    const Json& profile = report["profiles"][p];
    std::string ranges;
    for (const Json& input : profile["inputs"])
      ranges += fmt::format("{}{} {}", ranges.empty() ? "" : ", ", text(input["name"]), range_text(input["range"]));
    const std::string largest =
        profile["max_activation_bytes"].is_null() ? "" : fmt::format(", {} at the largest", size_text(profile["max_activation_bytes"]));
    fmt::print("profile {}: {}; {} of activations at the typical shapes{}\n", p, ranges, size_text(profile["activation_bytes"]), largest);
    for (const Json& step : profile["steps"])
      fmt::print("  {:>4} \"{}\" by {}, not {}\n", text(step["step"]), text(step["node"]), text(step["kernel"]), text(step["instead_of"]));
  }
}

void print_steps(const Json& report) {
  fmt::print("steps{}\n", report["profiles"].size() < 2 ? "" : fmt::format(" of profile {}", text(report["profile"])));
  for (std::size_t i = 0; i < report["steps"].size(); ++i) {
    const Json& step = report["steps"][i];
    fmt::print("  {:>4} {} \"{}\" by {}\n", i, text(step["op"]), text(step["node"]), kernel_choice(step));
  }
}

void print_collectives(const Json& report) {
  fmt::print("collectives{}\n", report["collectives"].empty() ? ": none" : "");
  for (const Json& use : report["collectives"])
    fmt::print("  {:>4} {} \"{}\" {} over {}: {} bytes a rank ({}){}\n", text(use["step"]), collective_name(use), text(use["node"]),
               text(use["dtype"]), ranks_of(use), text(use["bytes"]), text(use["typical_bytes"]),
               use["note"] == "" ? "" : "; " + text(use["note"]));
}

void print(const Json& report) {
  fmt::print("mesh {} of {} rank{}, device {}, {}{}{}{}\n", report["mesh"] == "" ? "none" : text(report["mesh"]),
             text(report["world_size"]), report["world_size"] == 1 ? "" : "s", text(report["device"]), text(report["tool"]),
             report["has_weights"] ? "" : ", without weights", report["refittable"] ? ", refittable" : "", report["tf32"] ? ", TF32" : "");
  print_ports(report);
  print_profiles(report);
  print_steps(report);
  print_collectives(report);
  std::size_t split = 0;
  for (const Json& weight : report["weights"]) split += !weight["axes"].empty();
  fmt::print("weights: {}, of which {} are split over ranks\n", report["weights"].size(), split);
  for (const Json& rank : report["ranks"])
    fmt::print("rank {}: {} of weights, {} of activations at {}\n", text(rank["rank"]), size_text(rank["weight_bytes"]),
               size_text(rank["activation_bytes"]), symbols_text(report));
  for (const auto& [what, which] : report["built_with"].items()) fmt::print("built with {}: {}\n", what, text(which));
  for (const Json& notice : report["notices"]) fmt::print("notice: {}\n", text(notice));
}

std::map<std::string, std::int64_t> sizes(const std::vector<std::string>& texts) {
  std::map<std::string, std::int64_t> out;
  for (const std::string& text : texts) {
    const auto [name, value] = name_and_value(text, "--at");
    std::int64_t size = 0;
    const auto [end, error] = std::from_chars(value.data(), value.data() + value.size(), size);
    if (error != std::errc() || end != value.data() + value.size()) throw CLI::ValidationError("--at", "'" + text + "' is not SYMBOL=SIZE");
    out[name] = size;
  }
  return out;
}

}  // namespace

Run add_inspect(CLI::App& app, Common& common) {
  struct State {
    ModelArguments model;
    std::string html;
    std::vector<std::string> at;
  };
  auto state = std::make_shared<State>();
  state->model.add(app);
  app.add_option("--html", state->html, "write the report as a page, which needs nothing else");
  app.add_option("--at", state->at, "SYMBOL=SIZE, like batch=8: the sizes that bytes are for; else typical ones")->delimiter(',');
  return [state, &common] {
    const std::string report = state->model.open(common).describe(sizes(state->at));
    if (!state->html.empty()) write_html(state->html, state->model.model, Json::parse(report));
    if (common.json) fmt::print("{}\n", report);
    else print(Json::parse(report));
    return 0;
  };
}

}  // namespace tandem::cli
