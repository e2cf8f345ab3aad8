#include "build/timing_cache.h"

#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>

#include "core/atomic_file.h"
#include "core/check.h"

namespace tandem {
namespace {

using Json = nlohmann::json;
constexpr const char* kMark = "tandem_timing_cache";
constexpr const char* kTimes = "microseconds";
constexpr const char* kAlgorithms = "algorithms";
constexpr int kVersion = 1;

}  // namespace

TimingCache::TimingCache(std::filesystem::path path) : path_(std::move(path)), times_(read(path_)) {}

std::map<std::string, Timing> TimingCache::read(const std::filesystem::path& path) {
  std::error_code ignored;
  if (path.empty() || !std::filesystem::exists(path, ignored)) return {};
  std::ifstream file(path, std::ios::binary);
  if (!file) fail(ErrorCode::io, "cannot read {}", path.string());
  const Json json = Json::parse(file, nullptr, false);
  const auto refuse = [&](const char* why) { fail(ErrorCode::invalid_argument, "{} is no timing cache: {}", path.string(), why); };
  if (json.is_discarded() || !json.is_object() || !json.contains(kMark) || !json.contains(kTimes) || !json[kTimes].is_object())
    refuse("it lacks its marks");
  if (json[kMark] != kVersion) refuse("it is of another version");
  std::map<std::string, Timing> times;
  for (const auto& [key, time] : json[kTimes].items()) {
    if (!time.is_number() || !(time.get<double>() > 0)) refuse("a time is no positive number");
    times[key].microseconds = time.get<double>();
  }
  if (!json.contains(kAlgorithms)) return times;
  if (!json[kAlgorithms].is_object()) refuse("its algorithms are no object");
  for (const auto& [key, words] : json[kAlgorithms].items()) {
    if (!words.is_string() || !times.contains(key)) refuse("an algorithm is no text, or has no time");
    times[key].algorithm = words.get<std::string>();
  }
  return times;
}

std::optional<Timing> TimingCache::find(const std::string& key) const {
  const auto found = times_.find(key);
  return found == times_.end() ? std::nullopt : std::optional(found->second);
}

void TimingCache::add(const std::string& key, const Timing& timing) {
  if (!std::isfinite(timing.microseconds) || timing.microseconds <= 0) return;
  times_[key] = timing;
  changed_ = true;
}

void TimingCache::save() const {
  if (path_.empty() || !changed_) return;
  std::map<std::string, Timing> all = read(path_);
  for (const auto& [key, timing] : times_) all[key] = timing;
  Json json = {{kMark, kVersion}, {kTimes, Json::object()}};
  for (const auto& [key, timing] : all) {
    json[kTimes][key] = timing.microseconds;
    if (!timing.algorithm.empty()) json[kAlgorithms][key] = timing.algorithm;
  }
  AtomicFile file(path_);
  file.write(json.dump(1) + "\n");
  file.commit();
}

}  // namespace tandem
