#include "cli/report.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

namespace tandem::cli {

using Json = nlohmann::json;

std::string text(const Json& value) { return value.is_string() ? value.get<std::string>() : value.dump(); }

std::string joined(const Json& list) {
  std::string out;
  for (const Json& item : list) out += (out.empty() ? "" : ",") + text(item);
  return out;
}

std::string size_text(const Json& bytes) {
  const double value = bytes.get<double>();
  if (value < 1024) return fmt::format("{} bytes", bytes.get<std::int64_t>());
  return value < (1 << 20) ? fmt::format("{:.1f} KiB", value / 1024) : fmt::format("{:.1f} MiB", value / (1 << 20));
}

std::string symbols_text(const Json& report) {
  std::string out;
  for (const auto& [name, value] : report.at("activation_bytes_for").items())
    out += fmt::format("{}{}={}", out.empty() ? "" : ", ", name, value.dump());
  return out.empty() ? "the fixed shapes" : out;
}

std::string kernel_choice(const Json& step) {
  std::string out = text(step.at("kernel"));
  if (step.at("microseconds") > 0) out += fmt::format(", {:.1f} µs", step.at("microseconds").get<double>());
  std::string others;
  for (const Json& c : step.at("candidates")) {
    if (c.at("kernel") == step.at("kernel")) continue;
    others += others.empty() ? "" : "; ";
    others += text(c.at("kernel"));
    if (c.at("reason") != "") others += ": " + text(c.at("reason"));
    else if (c.at("microseconds") > 0) others += fmt::format(" {:.1f} µs", c.at("microseconds").get<double>());
    else others += ", by rule";
  }
  if (!others.empty()) out += " (not " + others + ")";
  return step.at("note") == "" ? out : out + ": " + text(step.at("note"));
}

std::string collective_name(const Json& use) {
  return text(use.at("operation")) + (use.contains("reduce") ? " " + text(use.at("reduce")) : "");
}

std::string ranks_of(const Json& use) {
  if (use.at("axis") != "") return text(use.at("axis"));
  return use.at("groups").empty() ? "all ranks" : "ranks " + use.at("groups").dump();
}

}  // namespace tandem::cli
