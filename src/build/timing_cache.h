// TimingCache: measured times of kernels by what was run, kept in a file from build to build.
#pragma once

#include <filesystem>
#include <map>
#include <optional>
#include <string>

namespace tandem {

// Of one run of a kernel.
struct Timing {
  double microseconds = 0;
  std::string algorithm;  // with which it was that fast, where the kernel has several
};

// JSON: {"tandem_timing_cache": 1, "microseconds": {key: time, …}, "algorithms": {key: words, …}}. Keys name machine, kernel, version of
// its library and call, so one file serves many machines.
class TimingCache {
 public:
  // Reads the file if there is one; an empty path keeps nothing. Throws Error(invalid_argument) for a file that is something else.
  explicit TimingCache(std::filesystem::path path = {});

  std::optional<Timing> find(const std::string& key) const;
  void add(const std::string& key, const Timing& timing);
  // Adds what is new to the file, which may have grown meanwhile. Throws Error(io).
  void save() const;

 private:
  static std::map<std::string, Timing> read(const std::filesystem::path& path);

  std::filesystem::path path_;
  std::map<std::string, Timing> times_;
  bool changed_ = false;
};

}  // namespace tandem
