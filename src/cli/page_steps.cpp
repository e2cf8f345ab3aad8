#include <fmt/format.h>

#include <map>
#include <nlohmann/json.hpp>

#include "cli/page.h"
#include "cli/report.h"

namespace tandem::cli {
namespace {

using Json = nlohmann::json;

// The kernel with its time; what else was considered is folded away.
std::string kernel_cell(const Json& step) {
  std::string out = "<code>" + escaped(text(step["kernel"])) + "</code>";
  if (step["microseconds"] > 0) out += fmt::format(" {:.1f} µs", step["microseconds"].get<double>());
  std::string others;
  for (const Json& c : step["candidates"]) {
    if (c["kernel"] == step["kernel"]) continue;
    const double time = c["microseconds"];
    const std::string why = c["reason"] != "" ? escaped(text(c["reason"]))
                            : time > 0        ? fmt::format("{:.1f} µs", time)
                                              : "can run; by rule the other";
    others += fmt::format("<div><code>{}</code> <small>{}</small></div>", escaped(text(c["kernel"])), why);
  }
  return others.empty() ? out : out + "<details><summary>instead of</summary>" + others + "</details>";
}

class Folds {
 public:
  Folds(const Json& report, const MeshLook& look) : report_(report), look_(look) {
    for (const Json& use : report.at("collectives")) exchanges_[use.at("step")] = &use;
  }

  std::string write() const {
    const Json& steps = report_.at("steps");
    std::string out;
    bool opened = false;
    for (std::size_t first = 0; first < steps.size();) {
      std::size_t end = first + 1;
      while (end < steps.size() && steps[end]["layer"] == steps[first]["layer"]) ++end;
      const bool open = !opened && (steps[first]["layer"] != "" || end == steps.size());
      opened = opened || open;
      out += fold(first, end, open);
      first = end;
    }
    return out;
  }

 private:
  std::string fold(std::size_t first, std::size_t end, bool open) const {
    std::vector<std::string> rows;
    std::size_t exchanges = 0, weights = 0;
    std::int64_t sent = 0;
    double time = 0;
    for (std::size_t s = first; s < end; ++s) {
      const Json& step = report_["steps"][s];
      rows.push_back(row(s, step));
      time += step["microseconds"].get<double>();
      for (const Json& operand : step["operands"])
        if (operand >= 0) weights += weight_bytes(report_["values"][operand.get<std::size_t>()]);
      const auto use = exchanges_.find(s);
      if (use == exchanges_.end()) continue;
      ++exchanges;
      sent += (*use->second)["typical_bytes"].get<std::int64_t>();
    }
    const std::string layer = text(report_["steps"][first]["layer"]);
    std::string summary = fmt::format("<b>{}</b> <small>", layer.empty() ? "outside of numbered layers" : escaped(layer));
    summary += end - first == 1 ? fmt::format("step {}", first) : fmt::format("steps {} to {}", first, end - 1);
    if (weights > 0) summary += fmt::format(", {} of weights a rank", size_text(weights));
    if (exchanges > 0) summary += fmt::format(", {} exchange{} of {} a rank", exchanges, exchanges == 1 ? "" : "s", size_text(sent));
    if (time > 0) summary += fmt::format(", {:.1f} µs by the timings of the build", time);
    return html_fold(summary + "</small>", html_table({"step", "what", "makes", "bytes", "kernel", "why it is here"}, rows), open);
  }

  std::size_t weight_bytes(const Json& value) const {
    return value.contains("weight") ? report_["weights"][value["weight"].get<std::size_t>()]["bytes"].get<std::size_t>() : 0;
  }

  std::string row(std::size_t number, const Json& step) const {
    std::string made;
    std::size_t size = 0;
    for (const Json& result : step["results"]) {
      const Json& value = report_["values"][result.get<std::size_t>()];
      made += (made.empty() ? "" : "<br>") + look_.value(value);
      size += value["bytes"].get<std::size_t>();
    }
    std::string why = escaped(text(step["note"])), attributes;
    if (const auto found = exchanges_.find(number); found != exchanges_.end()) {
      const Json& use = *found->second;
      attributes = fmt::format("class=\"exchange\" style=\"--c:{}\"", use["axis"] == "" ? "var(--mark)" : look_.strong(text(use["axis"])));
      why = fmt::format("{} over {}, {} a rank{}{}", collective_name(use),
                        use["axis"] == "" ? escaped(ranks_of(use)) : look_.tag(text(use["axis"])), size_text(use["typical_bytes"]),
                        why.empty() ? "" : "; ", why);
    }
    const std::string what =
        fmt::format("<td class=\"node\">{}<br><small>{}</small>", escaped(text(step["op"])), escaped(text(step["node"])));
    const std::string index = fmt::format("<td class=\"n\">{}", number);
    return html_row({index, what, made, "<td class=\"n\">" + size_text(size), kernel_cell(step), "<td class=\"node\">" + why}, attributes);
  }

  const Json& report_;
  const MeshLook& look_;
  std::map<std::size_t, const Json*> exchanges_;
};

}  // namespace

std::string layer_folds(const Json& report, const MeshLook& look) { return Folds(report, look).write(); }

}  // namespace tandem::cli
