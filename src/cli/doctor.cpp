// tandem doctor
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <nlohmann/json.hpp>

#include "cli/verbs.h"
#include "tandem/machine.h"

namespace tandem::cli {
namespace {

using Json = nlohmann::json;

Json to_json(const MachineReport& report) {
  Json libraries = Json::array();
  for (const LibraryReport& library : report.libraries) {
    Json entry = {{"name", library.name}, {"purpose", library.purpose}, {"path", library.path.empty() ? Json() : Json(library.path)}};
    if (!library.version.empty()) entry["version"] = library.version;
    if (library.path.empty()) entry["how_to_get"] = library.how_to_get;
    libraries.push_back(std::move(entry));
  }
  return {{"cpu", report.cpu},
          {"features", report.features},
          {"cores", report.cores},
          {"cpu_limit", report.cpu_limit},
          {"memory_bytes", report.memory_bytes},
          {"available_bytes", report.available_bytes},
          {"devices", report.devices},
          {"libraries", libraries},
          {"hints", report.hints}};
}

void print(const MachineReport& report) {
  constexpr double kGib = 1 << 30;
  fmt::print("cpu       {} ({})\n", report.cpu, fmt::join(report.features, " "));
  fmt::print("cores     {}{}\n", report.cores,
             report.cpu_limit > 0 ? fmt::format(", of which the container allows {:.1f}", report.cpu_limit) : "");
  fmt::print("memory    {:.1f} GiB, {:.1f} available\n", static_cast<double>(report.memory_bytes) / kGib,
             static_cast<double>(report.available_bytes) / kGib);
  fmt::print("devices   {}\n", fmt::join(report.devices, "\n          "));
  for (const LibraryReport& library : report.libraries) {
    if (library.path.empty()) fmt::print("missing   {}, for {}: {}\n", library.name, library.purpose, library.how_to_get);
    else
      fmt::print("library   {}{}{} at {}, for {}\n", library.name, library.version.empty() ? "" : " ", library.version, library.path,
                 library.purpose);
  }
  for (const std::string& hint : report.hints) fmt::print("note      {}\n", hint);
}

}  // namespace

Run add_doctor(CLI::App&, Common& common) {
  return [&common] {
    const MachineReport report = inspect_machine();
    if (common.json) fmt::print("{}\n", to_json(report).dump());
    else print(report);
    return 0;
  };
}

}  // namespace tandem::cli
