// TimingCache: measured times of kernels by what was run, kept in a file from build to build.
#pragma once

#include <filesystem>
#include <map>
#include <optional>
#include <string>

namespace tandem {

// JSON: {"tandem_timing_cache": 1, "microseconds": {key: time, …}}. Keys name machine, kernel and call, so one file serves many machines.
class TimingCache {
 public:
  // Reads the file if there is one; an empty path keeps nothing. Throws Error(invalid_argument) for a file that is something else.
  explicit TimingCache(std::filesystem::path path = {});

  std::optional<double> find(const std::string& key) const;
  void add(const std::string& key, double microseconds);
  // Adds what is new to the file, which may have grown meanwhile. Throws Error(io).
  void save() const;

 private:
  static std::map<std::string, double> read(const std::filesystem::path& path);

  std::filesystem::path path_;
  std::map<std::string, double> times_;
  bool changed_ = false;
};

}  // namespace tandem
