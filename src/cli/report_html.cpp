#include <fmt/format.h>

#include <nlohmann/json.hpp>
#include <vector>

#include "cli/files.h"
#include "cli/report.h"

namespace tandem::cli {
namespace {

using Json = nlohmann::json;
using Row = std::vector<std::string>;

constexpr const char* kHead = R"(<!doctype html><html lang="en"><meta charset="utf-8"><title>{0}</title><style>
body{{font:14px/1.5 system-ui,sans-serif;margin:2em;max-width:110em;color:#222}}h1{{font-size:1.4em}}h2{{font-size:1.1em;margin-top:2em}}
table{{border-collapse:collapse}}th,td{{text-align:left;padding:.2em .8em;border-bottom:1px solid #ddd;vertical-align:top}}th{{background:#f4f4f4}}
@media(prefers-color-scheme:dark){{body{{background:#181818;color:#ddd}}th{{background:#262626}}th,td{{border-color:#444}}}}
</style><h1>{0}</h1>
)";

std::string escaped(const std::string& text) {
  std::string out;
  for (const char c : text) {
    switch (c) {
      case '<': out += "&lt;"; break;
      case '>': out += "&gt;"; break;
      case '&': out += "&amp;"; break;
      case '"': out += "&quot;"; break;
      default: out += c;
    }
  }
  return out;
}

std::string row(const char* cell, const Row& cells) {
  std::string out = "<tr>";
  for (const std::string& text : cells) out += fmt::format("<{0}>{1}</{0}>", cell, escaped(text));
  return out + "</tr>\n";
}

template <typename F>
std::string table(const char* title, const Row& heads, const Json& items, F cells) {
  std::string out = fmt::format("<h2>{}</h2>\n<table>{}", title, row("th", heads));
  for (const Json& item : items) out += row("td", cells(item));
  return out + "</table>\n";
}

std::string page(const std::string& title, const Json& r) {
  std::string out = fmt::format(kHead, escaped(title));
  out += fmt::format("<p>mesh {} of {} ranks, device {}, {}, digest {}</p>\n", escaped(text(r["mesh"])), text(r["world_size"]), escaped(text(r["device"])),
                     escaped(text(r["tool"])), text(r["digest"]));
  const auto port = [](const Json& p) { return Row{text(p["name"]), text(p["dtype"]), joined(p["shape"]), text(p["sharding"])}; };
  for (const char* kind : {"inputs", "outputs"}) out += table(kind, {"name", "type", "shape", "sharding"}, r[kind], port);
  out += table("collectives", {"step", "operation", "node", "axis", "bytes a rank", fmt::format("at {}", symbols_text(r)), "reason"}, r["collectives"],
               [](const Json& c) {
                 return Row{text(c["step"]), collective_name(c), text(c["node"]), ranks_of(c), text(c["bytes"]), size_text(c["typical_bytes"]), text(c["note"])};
               });
  out += table("memory", {"rank", "weights", fmt::format("activations at {}", symbols_text(r))}, r["ranks"],
               [](const Json& k) { return Row{text(k["rank"]), size_text(k["weight_bytes"]), size_text(k["activation_bytes"])}; });
  int number = 0;
  out += table("steps", {"step", "op", "node", "kernel"}, r["steps"],
               [&](const Json& s) { return Row{std::to_string(number++), text(s["op"]), text(s["node"]), kernel_choice(s)}; });
  out += table("weights", {"name", "type", "shape of a slice", "bytes", "split over"}, r["weights"],
               [](const Json& w) { return Row{text(w["name"]), text(w["dtype"]), joined(w["shape"]), size_text(w["bytes"]), joined(w["axes"])}; });
  Json built = Json::array();
  for (const auto& [what, which] : r["built_with"].items()) built.push_back({what, which});
  out += table("built with", {"what", "which"}, built, [](const Json& b) { return Row{text(b[0]), text(b[1])}; });
  out += table("notices", {"notice"}, r["notices"], [](const Json& n) { return Row{text(n)}; });
  return out + "</html>\n";
}

}  // namespace

void write_html(const std::string& path, const std::string& title, const Json& report) {
  write_text(path, page(title, report));
}

}  // namespace tandem::cli
