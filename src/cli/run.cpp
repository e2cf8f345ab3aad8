// tandem run, tandem bench
#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>

#include "cli/files.h"
#include "cli/progress.h"
#include "cli/step_table.h"
#include "cli/verbs.h"

namespace tandem::cli {
namespace {

using Json = nlohmann::json;

struct InputArguments {
  std::vector<std::string> single;
  std::string all;
  int profile = 0;

  void add(CLI::App& app) {
    app.add_option("--use-profile", profile, "without inputs: random ones of the typical shapes of this optimization profile, from 0");
    app.add_option("--input", single, "NAME=FILE.npy");
    app.add_option("--inputs", all, "a .safetensors file with the inputs under their names");
  }

  Arrays read(const Common& common, const Engine& engine) const {
    Arrays arrays;
    if (!all.empty()) arrays = read_arrays(all);
    for (const std::string& text : single) {
      const auto [name, file] = name_and_value(text, "--input");
      arrays[name] = read_npy(file);
    }
    if (all.empty() && single.empty()) {
      note(common, "no inputs given: random ones of the declared shapes");
      arrays = engine.random_inputs(0, profile);
    }
    return arrays;
  }
};

RankArrays as_lists(const Arrays& arrays) {
  RankArrays lists;
  for (const auto& [name, array] : arrays) lists[name] = {array};
  return lists;
}

Arrays as_file(const RankArrays& outputs) {
  Arrays arrays;
  for (const auto& [name, list] : outputs)
    for (std::size_t r = 0; r < list.size(); ++r) arrays[list.size() == 1 ? name : fmt::format("rank{}.{}", r, name)] = list[r];
  return arrays;
}

Json describe(const Arrays& arrays) {
  Json out = Json::array();
  for (const auto& [name, array] : arrays) out.push_back({{"name", name}, {"dtype", to_string(array.dtype)}, {"shape", array.shape}});
  return out;
}

// Time of the slowest rank's run beside its kernels and collectives (their waiting included), in microseconds: the median over traced runs.
double overhead_us(Model& model, const RankArrays& inputs, int runs, const ProgressCallback& progress) {
  std::vector<double> all;
  for (int i = 0; i < runs; ++i) {
    progress("tracing", static_cast<double>(i) / runs);
    RankArrays outputs;
    const Json timeline = Json::parse(model.trace(inputs, &outputs));
    std::map<int, double> busy;
    for (const Json& event : timeline.at("traceEvents"))
      if (event.at("ph") == "X") busy[event.at("pid").get<int>()] += event.at("dur").get<double>();
    double most = 0;
    for (const auto& [rank, us] : busy) most = std::max(most, us);
    all.push_back(model.last_seconds() * 1e6 - most);
  }
  std::ranges::sort(all);
  return all[all.size() / 2];
}

void warm_up(Model& model, const RankArrays& inputs, int runs, const ProgressCallback& progress) {
  for (int i = 0; i < runs; ++i) {
    progress("warming up", static_cast<double>(i) / runs);
    model.run(inputs);
  }
}

}  // namespace

Run add_run(CLI::App& app, Common& common) {
  struct State {
    ModelArguments model;
    InputArguments inputs;
    std::string outputs, trace;
    int warmup = 0;
    bool profile = false;
  };
  auto state = std::make_shared<State>();
  state->model.add(app);
  state->model.add_running(app, common);
  state->inputs.add(app);
  app.add_option("--outputs", state->outputs, "write the outputs to this .safetensors file");
  app.add_option("--trace", state->trace, "write a timeline of every rank for https://ui.perfetto.dev");
  app.add_flag("--profile", state->profile, "show the time of each step, longest first; not with --trace");
  app.add_option("--warmup", state->warmup, "runs before the one that counts")->check(CLI::Range(0, 1000000));
  return [state, &common] {
    if (state->profile && !state->trace.empty())
      throw Error(ErrorCode::invalid_argument, "--profile and --trace are for runs of their own: give one of them");
    const Engine engine = state->model.open(common);
    for (const std::string& text : engine.notices()) note(common, text);
    const RankArrays inputs = as_lists(state->inputs.read(common, engine));
    Model model(engine, common.team());
    warm_up(model, inputs, state->warmup, show_progress(common));
    RankArrays outputs;
    RankSteps steps;
    if (state->profile) {
      steps = profile_often(model, inputs, 1, show_progress(common), &outputs);
    } else if (state->trace.empty()) {
      outputs = model.run(inputs);
    } else {
      const std::string timeline = model.trace(inputs, &outputs);
      write_text(state->trace, timeline);
    }
    for (const std::string& text : model.notices()) note(common, text);
    const Arrays arrays = as_file(outputs);
    if (!state->outputs.empty()) write_arrays(state->outputs, arrays);
    if (common.json) {
      Json report = {{"ranks", engine.ranks()},
                     {"mesh", engine.mesh()},
                     {"seconds", model.last_seconds()},
                     {"notices", model.notices()},
                     {"outputs", describe(arrays)}};
      if (state->profile) report["profile"] = steps_as_json(steps);
      fmt::print("{}\n", report.dump());
    } else {
      fmt::print("ran on {} rank{} in {:.3f} ms\n", engine.ranks(), engine.ranks() == 1 ? "" : "s", model.last_seconds() * 1e3);
      for (const auto& [name, array] : arrays) fmt::print("  {} {}{}\n", name, to_string(array.dtype), to_string(array.shape));
      if (state->profile) print_steps(steps);
    }
    return 0;
  };
}

Run add_bench(CLI::App& app, Common& common) {
  struct State {
    ModelArguments model;
    InputArguments inputs;
    int runs = 100, warmup = 10;
    bool profile = false;
  };
  auto state = std::make_shared<State>();
  state->model.add(app);
  state->model.add_running(app, common);
  state->inputs.add(app);
  app.get_option("MODEL")->required(false);
  app.require_subcommand(0, 1);
  CLI::App* collectives = app.add_subcommand("collectives", "time the collectives instead of a model")->fallthrough();
  CLI::App* attention = app.add_subcommand("attention", "time attention, on one rank and with its sequence split")->fallthrough();
  const Run time_collectives = add_bench_collectives(*collectives, common), time_attention = add_bench_attention(*attention, common);
  app.add_option("--runs", state->runs, "timed runs")->check(CLI::Range(1, 1000000));
  app.add_flag("--profile", state->profile, "show the median time of each step too, longest first");
  app.add_option("--warmup", state->warmup, "runs before timing")->check(CLI::Range(0, 1000000));
  return [=, &common] {
    if (collectives->parsed()) return time_collectives();
    if (attention->parsed()) return time_attention();
    if (state->model.model.empty()) throw CLI::RequiredError("MODEL");
    const Engine engine = state->model.open(common);
    const RankArrays inputs = as_lists(state->inputs.read(common, engine));
    Model model(engine, common.team());
    ProgressCallback progress = show_progress(common);
    warm_up(model, inputs, state->warmup, progress);
    std::vector<double> slowest, whole, outside;
    for (int i = 0; i < state->runs; ++i) {
      progress("timing", static_cast<double>(i) / state->runs);
      const auto begin = std::chrono::steady_clock::now();
      model.run(inputs);
      whole.push_back(std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - begin).count());
      slowest.push_back(model.last_seconds() * 1e3);
      outside.push_back((whole.back() - slowest.back()) * 1e3);
    }
    const auto at = [](std::vector<double>& times, double part) {
      std::sort(times.begin(), times.end());
      return times[std::min(times.size() - 1, static_cast<std::size_t>(part * static_cast<double>(times.size())))];
    };
    const double median = at(slowest, 0.5);
    const double overhead = overhead_us(model, inputs, std::min(state->runs, 20), progress), around = at(outside, 0.5);
    const RankSteps steps = state->profile ? profile_often(model, inputs, std::min(state->runs, 20), progress) : RankSteps();
    progress = {};
    for (const std::string& text : model.notices()) note(common, text);
    Json report = {{"ranks", engine.ranks()},
                   {"runs", state->runs},
                   {"min_ms", at(slowest, 0)},
                   {"median_ms", median},
                   {"p99_ms", at(slowest, 0.99)},
                   {"call_median_ms", at(whole, 0.5)},
                   {"runs_per_second", 1e3 / at(whole, 0.5)},
                   {"rank_overhead_us", overhead},
                   {"call_overhead_us", overhead + around},
                   {"notices", model.notices()}};
    if (state->profile) report["profile"] = steps_as_json(steps);
    if (common.json) {
      fmt::print("{}\n", report.dump());
    } else {
      fmt::print(
          "{} ranks, {} runs, slowest rank: min {:.3f} ms, median {:.3f} ms, p99 {:.3f} ms; with scatter and gather {:.3f} ms, {:.1f} runs "
          "a second\n",
          engine.ranks(), state->runs, at(slowest, 0), median, at(slowest, 0.99), at(whole, 0.5), 1e3 / at(whole, 0.5));
      fmt::print("beside kernels and collectives: {:.0f} us in the slowest rank, {:.0f} us with scatter, start and gather\n", overhead,
                 overhead + around);
      if (state->profile) print_steps(steps);
    }
    return 0;
  };
}

}  // namespace tandem::cli
