// Memory over time, as an SVG of one bar per step (or per few steps, of very long programs).
#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>

#include "cli/page.h"
#include "cli/report.h"

namespace tandem::cli {
namespace {

using Json = nlohmann::json;

constexpr std::size_t kMostBars = 1500;
constexpr std::size_t kMostValues = 8;

// "ranks 0–3, 6".
std::string ranks_text(const std::vector<int>& ranks) {
  std::string out = ranks.size() == 1 ? "rank " : "ranks ";
  for (std::size_t i = 0; i < ranks.size();) {
    std::size_t last = i;
    while (last + 1 < ranks.size() && ranks[last + 1] == ranks[last] + 1) ++last;
    out += (i ? ", " : "") + std::to_string(ranks[i]) + (last > i ? "–" + std::to_string(ranks[last]) : "");
    i = last + 1;
  }
  return out;
}

std::string exchanged(const Json& use) {
  return fmt::format("{} over {}: {} a rank", collective_name(use), escaped(ranks_of(use)), size_text(use["typical_bytes"]));
}

std::string bars(const Json& report, const std::vector<std::size_t>& live, std::size_t top, const MeshLook& look) {
  std::map<std::size_t, const Json*> exchanges;
  for (const Json& use : report.at("collectives")) exchanges[use.at("step")] = &use;
  const std::size_t group = (live.size() + kMostBars - 1) / kMostBars;
  std::string out;
  for (std::size_t first = 0; first < live.size(); first += group) {
    const std::size_t end = std::min(first + group, live.size());
    std::size_t at = first;
    const Json* use = nullptr;
    for (std::size_t s = first; s < end; ++s) {
      if (live[s] > live[at]) at = s;
      if (const auto found = exchanges.find(s); found != exchanges.end() && !use) use = found->second;
    }
    const Json& step = report["steps"][at];
    const double height = top == 0 ? 0 : 1000.0 * static_cast<double>(live[at]) / static_cast<double>(top);
    out += fmt::format("<rect x=\"{}\" y=\"{:.1f}\" width=\"{}\" height=\"{:.1f}\"", first, 1000 - height, end - first, height);
    if (use) out += fmt::format(" style=\"fill:{}\"", (*use)["axis"] == "" ? "var(--mark)" : look.strong(text((*use)["axis"])));
    out += fmt::format("><title>step {}: {} {}\n{} alive{}</title></rect>\n", at, text(step["op"]), escaped(text(step["node"])),
                       size_text(live[at]), use ? "\n" + exchanged(*use) : "");
  }
  return out;
}

// Layers below the steps they take.
std::string bands(const Json& steps) {
  std::string out;
  for (std::size_t first = 0; first < steps.size();) {
    std::size_t end = first + 1;
    while (end < steps.size() && steps[end]["layer"] == steps[first]["layer"]) ++end;
    const double scale = 100.0 / static_cast<double>(steps.size());
    const std::string name = escaped(text(steps[first]["layer"]));
    if (!name.empty())
      out += fmt::format("<span style=\"left:{:.3f}%;width:{:.3f}%\" title=\"{}\">{}</span>", scale * static_cast<double>(first),
                         scale * static_cast<double>(end - first), name, name);
    first = end;
  }
  return out.empty() ? out : "<div class=\"bands\">" + out + "</div>";
}

std::string at_peak(const Json& report, std::size_t peak, const MeshLook& look) {
  std::vector<const Json*> alive;
  for (const Json& value : report.at("values"))
    if (value.contains("first_step") && value["first_step"].get<std::int64_t>() <= static_cast<std::int64_t>(peak) &&
        static_cast<std::int64_t>(peak) <= value["last_step"].get<std::int64_t>() && value["first_step"] >= 0)
      alive.push_back(&value);
  std::ranges::stable_sort(
      alive, [](const Json* a, const Json* b) { return (*a)["bytes"].get<std::size_t>() > (*b)["bytes"].get<std::size_t>(); });
  std::vector<std::string> rows;
  const std::size_t steps = report["steps"].size();
  for (std::size_t i = 0; i < std::min(alive.size(), kMostValues); ++i) {
    const Json& v = *alive[i];
    const std::size_t from = v["first_step"], to = v["last_step"];
    const Json& maker = report["steps"][from];
    const std::string life = fmt::format("<td class=\"n\">{} to {}", from, to >= steps ? "the end" : std::to_string(to));
    rows.push_back(html_row({look.value(v), "<td class=\"n\">" + size_text(v["bytes"]), life,
                             fmt::format("<td class=\"node\">{} <small>{}</small>", text(maker["op"]), escaped(text(maker["node"])))}));
  }
  const std::string more = alive.size() > kMostValues ? fmt::format(", the largest {} of {}", kMostValues, alive.size()) : "";
  return fmt::format("<h3>alive in step {}{}</h3>", peak, more) + html_table({"value", "bytes", "steps", "made by"}, rows);
}

std::string chart(const Json& report, const std::vector<int>& ranks, const Json& rank, const MeshLook& look) {
  const auto live = rank.at("live_bytes").get<std::vector<std::size_t>>();
  const std::size_t arena = rank.at("activation_bytes");
  const auto peak = static_cast<std::size_t>(std::ranges::max_element(live) - live.begin());
  const std::size_t top = std::max(arena, live[peak]);
  std::string out = fmt::format("<h3>{}</h3><p>At most {} alive at once, in step {}; packed into {}.</p>", ranks_text(ranks),
                                size_text(live[peak]), peak, size_text(arena));
  out += fmt::format("<div class=\"chart\"><div class=\"y\"><span>{}</span><span>{}</span><span>0</span></div>", size_text(top),
                     size_text(top / 2));
  out += fmt::format("<svg viewBox=\"0 0 {} 1000\" preserveAspectRatio=\"none\" fill=\"var(--bar)\" role=\"img\" ", live.size());
  out += "aria-label=\"bytes alive per step\">\n" + bars(report, live, top, look);
  const double line = top == 0 ? 1000 : 1000 - 1000.0 * static_cast<double>(arena) / static_cast<double>(top);
  out += fmt::format("<line x1=\"0\" x2=\"{}\" y1=\"{:.1f}\" y2=\"{:.1f}\" stroke=\"var(--mark)\" ", live.size(), line, line);
  out += "stroke-dasharray=\"4 4\" vector-effect=\"non-scaling-stroke\"/></svg>\n";
  out += fmt::format("<div class=\"x\"><span>step 0</span><span>step {}</span></div>{}</div>\n", live.size() - 1, bands(report["steps"]));
  return out + at_peak(report, peak, look);
}

}  // namespace

std::string memory_chart(const Json& report, const MeshLook& look) {
  std::vector<std::pair<const Json*, std::vector<int>>> alike;
  for (const Json& rank : report.at("ranks")) {
    if (rank.at("live_bytes").size() != report.at("steps").size() || rank["live_bytes"].empty()) continue;
    const auto same = [&](const auto& known) { return (*known.first)["live_bytes"] == rank["live_bytes"]; };
    const auto found = std::ranges::find_if(alike, same);
    if (found != alike.end()) found->second.push_back(rank["rank"]);
    else alike.emplace_back(&rank, std::vector<int>{rank["rank"].get<int>()});
  }
  std::string out = fmt::format(
      "<p>Activations that are alive while each step runs, at {}; bars in a colour are exchanges between ranks over that axis. "
      "The dashed line is the memory a rank takes for them.</p>",
      escaped(symbols_text(report)));
  for (const auto& [rank, ranks] : alike) out += chart(report, ranks, *rank, look);
  return alike.empty() ? "<p>The program has no steps.</p>\n" : out;
}

}  // namespace tandem::cli
