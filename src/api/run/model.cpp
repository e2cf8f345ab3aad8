#include <algorithm>
#include <charconv>
#include <chrono>
#include <nlohmann/json.hpp>
#include <thread>

#include "api/run/engine_data.h"
#include "api/run/step_time.h"
#include "api/run/step_waiting.h"
#include "api/run/through_host.h"
#include "core/seconds.h"
#include "tandem/team.h"
#include "team/team.h"

namespace tandem {
namespace {

using Json = nlohmann::json;

TeamTensors to_tensors(const RankArrays& arrays) {
  TeamTensors out;
  for (const auto& [name, list] : arrays)
    for (const Array& array : list) out[name].push_back(to_tensor(array));
  return out;
}

RankArrays to_arrays(const TeamTensors& tensors) {
  RankArrays out;
  for (const auto& [name, list] : tensors)
    for (const Tensor& tensor : list) out[name].push_back(to_array(tensor));
  return out;
}

Json timeline_name(int rank, int track, const char* kind, const std::string& name) {
  return {{"ph", "M"}, {"pid", rank}, {"tid", track}, {"name", kind}, {"args", {{"name", name}}}};
}

// Of the slowest rank.
double seconds_of(const TeamTimes& times) { return static_cast<double>(*std::ranges::max_element(times.rank_ns)) / 1e9; }

TeamTimes run_traced(Team& team, const EngineData& engine, const RankArrays& inputs, RankArrays* outputs) {
  TeamTimes times;
  const TeamTensors out = team.run(to_tensors(inputs), true, &times);
  if (outputs) *outputs = to_arrays(out);
  if (engine.plan().device != "cpu" && engine.plans.size() == 1) tell_waiting(engine.plan(), times.profile, times.trace);
  return times;
}

// Per rank one track of computation and one of communication.
Json timeline(const Team& team, const TeamTimes& times) {
  Json events = Json::array();
  std::int64_t first = INT64_MAX;
  for (const auto& rank : times.trace)
    for (const TraceEvent& event : rank) first = std::min(first, event.begin_ns);
  for (std::size_t r = 0; r < times.trace.size(); ++r) {
    const int rank = static_cast<int>(r);
    events.push_back(timeline_name(rank, 0, "process_name", fmt::format("rank {}", rank)));
    events.push_back(timeline_name(rank, 0, "thread_name", "compute"));
    events.push_back(timeline_name(rank, 1, "thread_name", "communication"));
    const auto& steps = team.plan(rank).programs.at(times.profile).steps;
    for (const TraceEvent& event : times.trace[r]) {
      const Step& step = steps.at(static_cast<std::size_t>(event.step));
      events.push_back({{"ph", "X"},
                        {"pid", rank},
                        {"tid", step.communicates ? 1 : 0},
                        {"name", step.op},
                        {"ts", static_cast<double>(event.begin_ns - first) / 1e3},
                        {"dur", static_cast<double>(event.end_ns - event.begin_ns) / 1e3},
                        {"args",
                         {{"node", step.node},
                          {"kernel", step.kernel},
                          {"step", event.step},
                          {"waited_us", static_cast<double>(event.waited_ns) / 1e3}}}});
    }
  }
  return {{"traceEvents", events}, {"displayTimeUnit", "ms"}};
}

}  // namespace

int serve_rank(const std::string& argument) {
  int socket = -1;
  const auto [end, error] = std::from_chars(argument.data(), argument.data() + argument.size(), socket);
  return error == std::errc{} && *end == '\0' && socket >= 0 ? serve_rank_process(socket) : 2;
}

Model::Model(const Engine& engine, const TeamOptions& options) : engine_(engine) {
  if (options.step_deadline_s < 1)
    fail(ErrorCode::invalid_argument, "the step deadline is {} s, the shortest is 1 s", options.step_deadline_s);
  if (options.threads < 0) fail(ErrorCode::invalid_argument, "a rank cannot have {} threads", options.threads);
  engine.data().require_weights();
  engine.data().check_budget(options.weight_budget_bytes);
  TeamSettings settings;
  settings.rank_command = options.rank_command;
  settings.threads =
      options.threads > 0 ? options.threads : std::max(1, static_cast<int>(std::thread::hardware_concurrency()) / engine.ranks());
  settings.dependent_launch = options.dependent_launch;
  settings.weight_budget = options.weight_budget_bytes;
  settings.engine_file = engine.data().path;
  settings.own_plan = engine.data().own_plan;
  settings.rendezvous_deadline = nanoseconds("rendezvous", options.rendezvous_deadline_s);
  settings.load_deadline = nanoseconds("load", options.load_deadline_s);
  settings.step_deadline = nanoseconds("step", options.step_deadline_s);
  settings.drain_deadline = nanoseconds("drain", options.drain_deadline_s);
  settings.stop = options.stop;
  settings.stop_deadline = options.stop_deadline_s < 0 ? settings.drain_deadline : nanoseconds("stop", options.stop_deadline_s);
  if (options.progress) settings.progress = [&options](double done) { options.progress("loading weights", done); };
  team_ = std::make_unique<Team>(engine.data().plans, engine.data().weights, settings);
}

Model::~Model() = default;
Model::Model(Model&&) noexcept = default;

RankArrays Model::run(const RankArrays& inputs, const OutputMemory& memory) {
  TeamTimes times;
  const TeamTensors outputs = team_->run(to_tensors(inputs), false, &times, memory);
  learn(times);
  last_copies_ = times.copies;
  return to_arrays(outputs);
}

void Model::learn(const TeamTimes& times) {
  last_seconds_ = seconds_of(times);
  notices_.clear();
  if (!times.through_host.empty()) notices_.push_back(through_host_notice(times.through_host));
}

RankArrays Model::run(const Arrays& inputs) {
  RankArrays lists;
  for (const auto& [name, array] : inputs) lists[name] = {array};
  return run(lists);
}

std::vector<std::vector<StepTime>> Model::profile(const RankArrays& inputs, RankArrays* outputs) {
  const TeamTimes times = run_traced(*team_, engine_.data(), inputs, outputs);
  learn(times);
  std::vector<std::vector<StepTime>> ranks;
  for (std::size_t r = 0; r < times.trace.size(); ++r) {
    ranks.emplace_back();
    const auto& steps = team_->plan(static_cast<int>(r)).programs.at(times.profile).steps;
    for (const TraceEvent& event : times.trace[r])
      ranks.back().push_back(step_time(steps.at(static_cast<std::size_t>(event.step)), event, times.trace[r].front().begin_ns));
  }
  return ranks;
}

std::string Model::trace(const RankArrays& inputs, RankArrays* outputs) {
  const TeamTimes times = run_traced(*team_, engine_.data(), inputs, outputs);
  learn(times);
  return timeline(*team_, times).dump();
}

}  // namespace tandem
