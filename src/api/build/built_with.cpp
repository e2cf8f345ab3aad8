#include "api/build/built_with.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <sstream>
#include <vector>

#include "api/build/measure.h"
#include "ops/libraries_cpu.h"

namespace tandem {
namespace {

constexpr std::string_view kTimed = "timed", kNoEarlyStart = "no-pdl", kKernel = "kernel=";

std::string compiler() {
#ifdef __clang__
  return fmt::format("clang {}.{}.{}", __clang_major__, __clang_minor__, __clang_patchlevel__);
#else
  return fmt::format("gcc {}.{}.{}", __GNUC__, __GNUC_MINOR__, __GNUC_PATCHLEVEL__);
#endif
}

void add_map(std::vector<std::string>& words, const std::string& name, const std::map<std::string, std::string>& entries) {
  for (const auto& [key, value] : entries) words.push_back(fmt::format("{}={}={}", name, key, value));
}

std::string text_of(const BuildOptions& options) {
  std::vector<std::string> words;
  if (options.exact) words.emplace_back("exact");
  if (options.tf32) words.emplace_back("tf32");
  if (options.refittable) words.emplace_back("refittable");
  if (options.timed) words.emplace_back(kTimed);
  if (!options.dependent_launch) words.emplace_back(kNoEarlyStart);
  if (!options.dtype.empty()) words.push_back("dtype=" + options.dtype);
  if (!options.weights.empty()) words.push_back("weights=" + options.weights);
  if (!options.channels_last.empty()) words.push_back("channels-last=" + options.channels_last);
  add_map(words, "strategy", options.strategies);
  add_map(words, "shape", options.shapes);
  for (std::size_t p = 0; p < options.profiles.size(); ++p) add_map(words, fmt::format("profile{}", p), options.profiles[p]);
  add_map(words, "io", options.io);
  for (const std::string& pass : options.disabled_passes) words.push_back("disable-pass=" + pass);
  for (const std::string& kernel : options.kernels) words.push_back(std::string(kKernel) + kernel);
  return fmt::format("{}", fmt::join(words, " "));
}

}  // namespace

std::map<std::string, std::string> built_with(const BuildOptions& options, int threads) {
  std::map<std::string, std::string> record = library_versions(options.device.empty() ? "cpu" : options.device);
  record["compiler"] = compiler();
  record["vectors"] = vector_code();
  record["target"] = !options.target.empty() ? options.target : options.device.empty() ? "cpu" : options.device;
  if (const std::string commit = source_commit(); !commit.empty()) record["commit"] = commit;
  if (const std::string text = text_of(options); !text.empty()) record["options"] = text;
  if (options.timed) record["cpu"] = machine_name(threads);
  return record;
}

RecordedBuild recorded_build(const std::map<std::string, std::string>& built_with) {
  RecordedBuild build;
  const auto options = built_with.find("options");
  std::istringstream words(options == built_with.end() ? std::string() : options->second);
  for (std::string word; words >> word;) {
    if (word == kNoEarlyStart) build.dependent_launch = false;
    if (word.starts_with(kKernel)) build.kernels.push_back(word.substr(kKernel.size()));
  }
  return build;
}

void record_timing(std::map<std::string, std::string>& built_with, const std::string& device, int threads) {
  for (const auto& [library, version] : library_versions(device)) built_with[library] = version;
  built_with["cpu"] = machine_name(threads);
  std::string& options = built_with["options"];
  if (options.empty()) options = kTimed;
  else if ((" " + options + " ").find(fmt::format(" {} ", kTimed)) == std::string::npos) options += fmt::format(" {}", kTimed);
}

}  // namespace tandem
