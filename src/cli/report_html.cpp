// The page of `tandem inspect --html`: needs no script, no network and nothing else.
#include <fmt/format.h>

#include <filesystem>
#include <nlohmann/json.hpp>
#include <vector>

#include "cli/files.h"
#include "cli/page.h"
#include "cli/report.h"

namespace tandem::cli {
namespace {

using Json = nlohmann::json;
using Rows = std::vector<std::string>;

std::string tile(const std::string& number, const std::string& what) {
  return fmt::format("<div class=\"tile\"><b>{}</b>{}</div>\n", number, what);
}

std::string number_cell(const std::string& text) { return "<td class=\"n\">" + text; }

std::string head(const std::string& title, const Json& r) {
  std::string out = fmt::format(
      "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width, "
      "initial-scale=1\">\n"
      "<title>{0}</title><link rel=\"icon\" href=\"data:,\"><style>{1}</style></head>\n<body><h1>{0}</h1>\n",
      escaped(title), kPageStyle);
  out += fmt::format("<p class=\"soft\">{} for device {}{}{}{}, digest <code>{}</code></p>\n", escaped(text(r["tool"])),
                     escaped(text(r["device"])), r["has_weights"] ? "" : ", without weights", r["refittable"] ? ", refittable" : "",
                     r["exact"]  ? ", exact"
                     : r["tf32"] ? ", TF32"
                                 : "",
                     text(r["digest"]));
  out += "<nav>";
  for (const char* id : {"mesh", "ports", "collectives", "memory", "layers", "weights", "built"})
    out += fmt::format("<a href=\"#{0}\">{0}</a>", id);
  return out + "</nav>\n";
}

std::string tiles(const Json& r) {
  const Json& rank = r["ranks"][0];
  const std::string sizes = escaped(symbols_text(r));
  std::string out =
      "<div class=\"tiles\">" + tile(text(r["world_size"]), r["world_size"] == 1 ? "rank" : "ranks, mesh " + escaped(text(r["mesh"])));
  out += tile(std::to_string(r["steps"].size()), "steps") + tile(std::to_string(r["collectives"].size()), "collectives a run");
  out += tile(size_text(rank["weight_bytes"]), "of weights a rank") +
         tile(size_text(rank["activation_bytes"]), "of activations a rank, at " + sizes);
  return out + tile(size_text(rank["sent_bytes"]), "sent by a rank in a run") + "</div>\n";
}

std::string ports(const Json& r, const MeshLook& look) {
  Rows rows;
  for (const char* kind : {"inputs", "outputs"})
    for (const Json& p : r[kind])
      rows.push_back(
          html_row({kind == std::string("inputs") ? "input" : "output", "<td class=\"node\">" + escaped(text(p["name"])), look.value(p)}));
  return html_table({"", "name", "whole, as the caller sees it"}, rows);
}

std::string collectives(const Json& r, const MeshLook& look) {
  Rows rows;
  for (const Json& c : r["collectives"]) {
    const std::string axis = text(c["axis"]);
    rows.push_back(
        html_row({number_cell(text(c["step"])), number_cell(collective_name(c)), axis.empty() ? escaped(ranks_of(c)) : look.tag(axis),
                  number_cell(size_text(c["typical_bytes"])), "<td class=\"node\"><code>" + escaped(text(c["bytes"])) + "</code>",
                  "<td class=\"node\"><small>" + escaped(text(c["node"])) + "</small>", "<td class=\"node\">" + escaped(text(c["note"]))},
                 fmt::format("class=\"exchange\" style=\"--c:{}\"", axis.empty() ? "var(--mark)" : look.strong(axis))));
  }
  if (rows.empty()) return "<p>None: no rank waits for another.</p>\n";
  return html_table({"step", "operation", "over", "sent by a rank", "bytes", "node", "reason"}, rows);
}

std::string rank_weights(const Json& r, const MeshLook& look) {
  Rows rows;
  for (const Json& k : r["ranks"]) {
    std::string place;
    for (const Json& axis : r["axes"])
      place += fmt::format("{} {} ", look.tag(text(axis["name"])), k["coordinates"][text(axis["name"])].get<int>());
    const std::int64_t all = k["weight_bytes"], split = k["split_weight_bytes"];
    rows.push_back(html_row({number_cell(text(k["rank"])), number_cell(place), number_cell(size_text(all)), number_cell(size_text(split)),
                             number_cell(size_text(all - split))}));
  }
  return html_table({"rank", "place", "weights", "slices of its own", "shared with all"}, rows);
}

std::string weights(const Json& r, const MeshLook& look) {
  Rows rows;
  std::size_t split = 0;
  for (const Json& w : r["weights"]) {
    split += !w["axes"].empty();
    rows.push_back(html_row({"<td class=\"node\">" + escaped(text(w["name"])), look.value(w), number_cell(size_text(w["bytes"])),
                             w["frozen"] ? "constant" : ""}));
  }
  return rank_weights(r, look) +
         html_fold(fmt::format("<b>{} weights</b> <small>{} of them split over ranks</small>", r["weights"].size(), split),
                   html_table({"name", "what a rank holds", "bytes", ""}, rows), false);
}

std::string built_with(const Json& r) {
  Rows rows;
  for (const auto& [what, which] : r["built_with"].items())
    rows.push_back(html_row({escaped(what), "<td class=\"node\">" + escaped(text(which))}));
  if (r["strategy"] != "") rows.push_back(html_row({"strategy", escaped(text(r["strategy"]))}));
  return html_table({"what", "which"}, rows);
}

std::string page(const std::string& title, const Json& r) {
  const MeshLook look(r);
  std::string out = head(title, r) + tiles(r);
  for (const Json& notice : r["notices"]) out += "<p class=\"notice\">" + escaped(text(notice)) + "</p>\n";
  const auto part = [&](const char* id, const char* name, const std::string& inside) {
    out += fmt::format("<section id=\"{}\"><h2>{}</h2>\n{}</section>\n", id, name, inside);
  };
  part("mesh", "Mesh", look.legend() + look.ranks());
  part("ports", "Inputs and outputs", ports(r, look));
  part("collectives", "Collectives", collectives(r, look));
  part("memory", "Memory over time", memory_chart(r, look));
  part("layers", "Layers and steps", layer_folds(r, look));
  part("weights", "Weights", weights(r, look));
  part("built", "Built with", built_with(r));
  return out + "</body></html>\n";
}

}  // namespace

void write_html(const std::string& path, const std::string& title, const Json& report) {
  write_text(path, page(std::filesystem::path(title).filename().string(), report));
}

}  // namespace tandem::cli
