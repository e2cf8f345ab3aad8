// tandem inspect --html: the report as one page that needs nothing else.
#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "cli/inspect.h"

namespace tandem::cli {
namespace {

using Json = nlohmann::json;

constexpr const char* kStyle =
    "body{font:14px/1.5 system-ui,sans-serif;margin:2em auto;max-width:75em;padding:0 1em;color:#222}h1{font-size:1.4em}h2{font-size:1.1em;margin-top:2em}"
    "table{border-collapse:collapse;width:100%}th,td{text-align:left;padding:.25em .8em .25em 0;border-bottom:1px solid #ddd;vertical-align:top}"
    "td.n,th.n{text-align:right;font-variant-numeric:tabular-nums}code{font:13px ui-monospace,monospace}p.notice{background:#fff6d6;padding:.4em .8em}";

std::string escaped(const std::string& text) {
  std::string out;
  for (const char c : text) {
    if (c == '<') out += "&lt;";
    else if (c == '>') out += "&gt;";
    else if (c == '&') out += "&amp;";
    else if (c == '"') out += "&quot;";
    else out += c;
  }
  return out;
}

// A value of the report as text: lists joined by commas.
std::string text_of(const Json& value) {
  if (value.is_string()) return escaped(value.get<std::string>());
  if (value.is_number_float()) return fmt::format("{:.1f}", value.get<double>());
  if (!value.is_array()) return escaped(value.dump());
  std::string out;
  for (const Json& entry : value) out += (out.empty() ? "" : ",") + text_of(entry);
  return out;
}

struct Column {
  const char *key, *title;
  bool number = false;
};

std::string table(const char* title, const Json& rows, std::initializer_list<Column> columns) {
  std::string out = fmt::format("<h2>{} ({})</h2>\n<table>\n<tr>", title, rows.size());
  for (const Column& c : columns) out += fmt::format("<th{}>{}</th>", c.number ? " class=n" : "", c.title);
  for (const Json& row : rows) {
    out += "</tr>\n<tr>";
    for (const Column& c : columns) out += fmt::format("<td{}>{}</td>", c.number ? " class=n" : "", row.contains(c.key) ? text_of(row[c.key]) : "");
  }
  return out + "</tr>\n</table>\n";
}

}  // namespace

std::string inspect_page(const std::string& name, const Json& report) {
  const std::string mesh = report["mesh"] == "" ? "one rank" : text_of(report["mesh"]);
  std::string page = fmt::format("<!doctype html>\n<html lang=en><meta charset=utf-8><title>{0}</title><style>{1}</style>\n<h1>{0}</h1>\n", escaped(name), kStyle);
  page += fmt::format("<p>Mesh <code>{}</code>, {} ranks, device {}, written by {}.</p>\n", mesh, text_of(report["world_size"]), text_of(report["device"]), text_of(report["tool"]));
  for (const Json& notice : report["notices"]) page += fmt::format("<p class=notice>{}</p>\n", text_of(notice));
  for (const char* kind : {"inputs", "outputs"})
    page += table(kind, report[kind], {{"name", "name"}, {"dtype", "type"}, {"shape", "shape"}, {"sharding", "sharding"}});
  page += table("ranks", report["ranks"], {{"rank", "rank"}, {"weight_bytes", "bytes of weights", true}, {"activation_bytes", "bytes of activations", true}});
  page += table("collectives", report["collectives"],
                {{"operation", "operation"}, {"reduce", "reduction"}, {"dtype", "type"}, {"axis", "axis"}, {"groups", "groups"}, {"bytes", "bytes a rank sends", true}, {"node", "node"}, {"note", "reason"}});
  page += table("steps", report["steps"], {{"op", "op"}, {"node", "node"}, {"kernel", "kernel"}, {"microseconds", "µs when built", true}, {"note", "note"}});
  return page + "</html>\n";
}

}  // namespace tandem::cli
