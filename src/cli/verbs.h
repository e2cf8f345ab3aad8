// The verbs of the program `tandem`: each adds its options to the command line and returns what runs it.
#pragma once

#include <CLI/CLI.hpp>
#include <functional>
#include <optional>
#include <string>

#include "tandem/tandem.h"

namespace tandem::cli {

// What every verb knows; filled while the command line is read.
struct Common {
  bool json = false;
  std::string log_level = "info";
  std::string device;  // empty: an engine's own, or cpu
  double deadline = 30;
  int threads = 0;
  std::string isolate = "processes";
  bool no_pdl = false;
  std::optional<std::size_t> weight_budget;
  LoadOptions load;
  TeamOptions team() const;
  bool quiet() const { return log_level == "error" || log_level == "off"; }
};

// Returns the exit code; throws Error.
using Run = std::function<int()>;
Run add_build(CLI::App& app, Common& common);
Run add_refit(CLI::App& app, Common& common);
Run add_run(CLI::App& app, Common& common);
Run add_verify(CLI::App& app, Common& common);
Run add_inspect(CLI::App& app, Common& common);
Run add_bench(CLI::App& app, Common& common);
Run add_bench_collectives(CLI::App& app, Common& common);
Run add_bench_attention(CLI::App& app, Common& common);
Run add_doctor(CLI::App& app, Common& common);

// Options about how a model is built, shared by the verbs that take one.
struct ModelArguments {
  std::string model;
  BuildOptions build;
  std::vector<std::string> strategies, shapes, ports;
  bool with_mesh = true;
  void add(CLI::App& app, bool mesh = true);
  void add_running(CLI::App& app, Common& common);  // for verbs that run the model
  void finish();
  void add_strategy(const std::string& text);
  void add_shapes();
  // Loads an engine file, builds anything else. Throws CLI::ValidationError for options that only a build understands beside an engine.
  Engine open(const Common& common);
};

// Empty for the devices and for the targets of this program, else why they are not.
std::string of_device(const std::string& name);
std::string of_target(const std::string& name);
// "a=b" → {a, b}; throws CLI::ValidationError otherwise.
std::pair<std::string, std::string> name_and_value(const std::string& text, const std::string& option);
// "4K", "64KiB", "4GB", "100" → bytes, by powers of 1024; throws CLI::ValidationError for what is none, or is 0.
std::int64_t parse_size(const std::string& text, const std::string& option);
void note(const Common& common, const std::string& text);

}  // namespace tandem::cli
