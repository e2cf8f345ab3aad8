#include "cli/page.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "cli/report.h"

namespace tandem::cli {

using Json = nlohmann::json;

const char* const kPageStyle = R"(
:root{color-scheme:light dark;--bg:#fff;--fg:#1c2024;--soft:#5d6670;--line:#d9dee3;--card:#f6f8fa;--bar:#8fa3b8;--mark:#b3261e;
--a0:#c9defa;--a1:#fcd7b1;--a2:#c6ebce;--a3:#e2d3f7;--a4:#bfe9ea;--a5:#f9cfe0;--a6:#f3e69a;--a7:#e2d5c8;
--s0:#1f6fd6;--s1:#d06a00;--s2:#1c8a3d;--s3:#7a45c9;--s4:#0f8389;--s5:#c22f6e;--s6:#8f7a00;--s7:#80644a}
@media(prefers-color-scheme:dark){:root{--bg:#14171a;--fg:#dfe4e8;--soft:#98a2ac;--line:#343b42;--card:#1d2226;--bar:#5b7189;--mark:#ff8a80;
--a0:#1d4272;--a1:#6d4010;--a2:#1c5530;--a3:#4c3276;--a4:#125156;--a5:#6e2648;--a6:#5e5110;--a7:#50432f;
--s0:#6fa8f5;--s1:#f0a050;--s2:#66c582;--s3:#b48cf0;--s4:#55c3c8;--s5:#f080ac;--s6:#d8c24a;--s7:#c4a585}}
*{box-sizing:border-box}
body{font:15px/1.5 system-ui,sans-serif;margin:0 auto;padding:1.5rem clamp(1rem,3vw,3rem) 4rem;max-width:90rem;background:var(--bg);color:var(--fg)}
h1{font-size:1.5rem;margin:0;overflow-wrap:anywhere}h2{font-size:1.15rem;margin:2.2rem 0 .6rem}h3{font-size:1rem;margin:1rem 0 .4rem;font-weight:600}
p{margin:.4rem 0;max-width:60rem}.soft,small{color:var(--soft)}small{font-size:.85em}
nav{margin:.8rem 0;display:flex;flex-wrap:wrap;gap:.2rem 1rem}a{color:var(--s0)}
.tiles{display:flex;flex-wrap:wrap;gap:.8rem;margin:1rem 0}
.tile,.rank{background:var(--card);border:1px solid var(--line);border-radius:.5rem;padding:.5rem .9rem}
.tile b{display:block;font-size:1.25rem;line-height:1.3}
.ranks{display:grid;gap:.6rem;overflow-x:auto;padding-bottom:.3rem}.rank{font-size:.9rem;min-width:9.5rem}.rank b{font-size:1rem}
.scroll{overflow-x:auto;max-width:100%}
table{border-collapse:collapse;font-size:.92rem}th,td{text-align:left;padding:.28rem .9rem .28rem 0;border-bottom:1px solid var(--line);vertical-align:top}
th{font-weight:600;color:var(--soft);white-space:nowrap}td.n{white-space:nowrap;font-variant-numeric:tabular-nums}td.node{overflow-wrap:anywhere;min-width:13rem}td.node code{white-space:nowrap}
tr.exchange td{background:var(--card)}tr.exchange td:first-child{box-shadow:inset 4px 0 0 var(--c)}td:first-child,th:first-child{padding-left:.6rem}
code,.value{font-family:ui-monospace,SFMono-Regular,Menlo,monospace;font-size:.88em}
.value{display:inline-flex;gap:2px;margin:1px 0;align-items:stretch}
.value>*{padding:0 .4em;border-radius:3px;background:var(--card);border:1px solid var(--line);font-style:normal;font-weight:400;white-space:nowrap;
max-width:22rem;overflow:hidden;text-overflow:ellipsis}
.value>b{border-color:transparent;background:none;padding-left:0;color:var(--soft)}
.value small{margin-left:.35em;color:inherit;opacity:.75}
.value>.partial{background:repeating-linear-gradient(135deg,var(--c) 0 5px,transparent 5px 10px);border-color:var(--c)}
.value>.varying{border:1px dashed var(--fg)}
.axis{display:inline-block;padding:0 .5em;border-radius:3px;background:var(--c);font-family:ui-monospace,Menlo,monospace;font-size:.88em}
details{border:1px solid var(--line);border-radius:.5rem;margin:.5rem 0;padding:0 .9rem}details[open]{padding-bottom:.6rem}
summary{cursor:pointer;padding:.45rem 0;overflow-wrap:anywhere}summary b{margin-right:.6rem}
td details{border:0;margin:0;padding:0}td summary{padding:0;color:var(--soft)}
.chart{display:grid;grid-template-columns:auto 1fr;gap:0 .5rem;margin:.6rem 0;font-size:.85rem;color:var(--soft)}
.chart .y{display:flex;flex-direction:column;justify-content:space-between;text-align:right;white-space:nowrap}
.chart svg{display:block;width:100%;height:15rem;border-bottom:1px solid var(--soft);border-left:1px solid var(--soft);overflow:visible}
.chart .x{grid-column:2;display:flex;justify-content:space-between}
.chart .bands{grid-column:2;position:relative;height:1.5rem;margin-top:2px}
.bands span{position:absolute;top:0;height:1.4rem;overflow:hidden;white-space:nowrap;text-overflow:ellipsis;background:var(--card);
border:1px solid var(--line);border-radius:3px;padding:0 .3em;font-size:.78rem}
.notice{border-left:4px solid var(--s1);background:var(--card);padding:.3rem .8rem;overflow-wrap:anywhere}
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

std::string html_row(const std::vector<std::string>& cells, const std::string& attributes) {
  std::string out = fmt::format("<tr{}{}>", attributes.empty() ? "" : " ", attributes);
  for (const std::string& cell : cells) out += cell.starts_with("<td") ? cell + "</td>" : "<td>" + cell + "</td>";
  return out + "</tr>\n";
}

std::string html_table(const std::vector<std::string>& heads, const std::vector<std::string>& rows) {
  std::string out = "<div class=\"scroll\"><table><tr>";
  for (const std::string& head : heads) out += "<th>" + escaped(head) + "</th>";
  out += "</tr>\n";
  for (const std::string& row : rows) out += row;
  return out + "</table></div>\n";
}

std::string html_fold(const std::string& summary, const std::string& inside, bool open) {
  return fmt::format("<details{}><summary>{}</summary>{}</details>\n", open ? " open" : "", summary, inside);
}

std::string MeshLook::variable(char kind, const std::string& axis) const {
  for (std::size_t i = 0; i < report_.at("axes").size(); ++i)
    if (report_["axes"][i].at("name") == axis) return fmt::format("var(--{}{})", kind, i % 8);
  return kind == 's' ? "var(--soft)" : "var(--line)";
}

std::string MeshLook::tag(const std::string& axis) const {
  return fmt::format("<span class=\"axis\" style=\"--c:{}\">{}</span>", colour(axis), escaped(axis));
}

std::string MeshLook::value(const Json& described) const {
  std::string out = fmt::format("<span class=\"value\"><b>{}</b>", text(described.at("dtype")));
  for (std::size_t d = 0; d < described.at("shape").size(); ++d) {
    const Json& axes = described.at("split").at(d);
    std::string style, names;
    for (std::size_t i = 0; i < axes.size(); ++i) {
      style += fmt::format(",{0} {1}% {2}%", colour(axes[i]), 100 * i / axes.size(), 100 * (i + 1) / axes.size());
      names += (names.empty() ? "" : " ") + text(axes[i]);
    }
    const std::string extent = escaped(text(described["shape"][d]));
    if (axes.empty()) {
      out += fmt::format("<i title=\"{0}\">{0}</i>", extent);
      continue;
    }
    out += fmt::format("<i class=\"split\" style=\"background:linear-gradient(90deg{})\" ", style);
    out += fmt::format("title=\"{1}, split over {0}\">{1}<small>{0}</small></i>", escaped(names), extent);
  }
  for (const Json& axis : described.value("partial", Json::array()))
    out += fmt::format("<i class=\"partial\" style=\"--c:{0}\" title=\"each rank has a part of a sum over {1}\">Σ {1}</i>", colour(axis),
                       escaped(text(axis)));
  for (const Json& axis : described.value("varying", Json::array()))
    out += fmt::format("<i class=\"varying\" title=\"another value on each rank of {0}\">≠ {0}</i>", escaped(text(axis)));
  return out + "</span>";
}

std::string MeshLook::legend() const {
  std::string out = "<p>";
  for (const Json& axis : report_.at("axes")) out += fmt::format("{} {} ranks &nbsp; ", tag(axis.at("name")), axis.at("size").get<int>());
  if (report_["axes"].empty()) return out + "one rank, nothing is split</p>\n";
  return out +
         "<br><small>A dimension in the colour of an axis is split over it; <i>Σ</i> marks values of which each rank has a part of a sum; "
         "what has no "
         "colour is the same on all ranks.</small></p>\n";
}

std::string MeshLook::ranks() const {
  const Json& axes = report_.at("axes");
  const int columns = axes.empty() ? 1 : std::min(8, axes.back().at("size").get<int>());
  std::string out = fmt::format("<div class=\"ranks\" style=\"grid-template-columns:repeat({},minmax(9.5rem,16rem))\">\n", columns);
  for (const Json& rank : report_.at("ranks")) {
    out += fmt::format("<div class=\"rank\"><b>rank {}</b> ", rank.at("rank").get<int>());
    for (const Json& axis : axes)
      out += fmt::format("<span class=\"axis\" style=\"--c:{}\">{} {}</span> ", colour(axis["name"]), escaped(text(axis["name"])),
                         rank.at("coordinates").at(text(axis["name"])).get<int>());
    out += fmt::format("<br>{} of weights<br>{} of activations<br>sends {} a run</div>\n", size_text(rank.at("weight_bytes")),
                       size_text(rank.at("activation_bytes")), size_text(rank.at("sent_bytes")));
  }
  return out + "</div>\n";
}

}  // namespace tandem::cli
