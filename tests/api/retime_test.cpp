// Engines whose kernels were chosen by rule and are timed where they run.
#include "build/retime.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>

#include "api/models.h"
#include "api/plans_differ.h"
#include "api/run/engine_data.h"
#include "core/check.h"
#include "graph/builder.h"
#include "ops/ops.h"
#include "support/temporary_folder.h"
#include "support/thrown.h"
#include "tandem/tandem.h"

namespace tandem {
namespace {

using testing::expect_says;
using testing::model_path;
using testing::on;
using testing::TemporaryFolder;
using testing::thrown;
using Json = nlohmann::json;

// How many own kernels of this build multiply; with one there is nothing to choose.
std::vector<std::string> kernels_that_multiply() {
  std::vector<std::string> names;
  for (const KernelDef* kernel : kernels_of("MatMul", "cpu"))
    if (!kernel->op.empty()) names.emplace_back(kernel->name);
  return names;
}

constexpr const char* kNoChoice = "this build has one kernel that multiplies";

// y = a[B, 8] · b[8, 8], B ≤ 64.
std::unique_ptr<Module> product() {
  auto module = std::make_unique<Module>(all_ops());
  Graph& graph = module->add_graph("main");
  Value* a = graph.add_input("a", {DType::f32, {Dim::symbol("B"), 8}});
  graph.outputs().push_back({"y", GraphBuilder(graph).add("MatMul", {a, graph.add_input("b", {DType::f32, {8, 8}})})});
  graph.profiles.push_back({{"B", {1, 16, 64}}});
  return module;
}

// Finds the kernel that the rule takes the slowest.
struct Contrary {
  std::string by_rule;
  std::vector<std::string> measured = {};
  Timing operator()(const Trial& trial) {
    measured.emplace_back(trial.kernel.name);
    return {trial.kernel.name == by_rule ? 1000.0 : 10.0 + static_cast<double>(measured.size()),
            "words of " + std::string(trial.kernel.name)};
  }
};

TEST(Retime, TakesWhatABuildThatTimesTakes) {
  if (kernels_that_multiply().size() < 2) GTEST_SKIP() << kNoChoice;
  const Plan by_rule = build_plan(*product());
  Contrary contrary{by_rule.programs[0].steps[0].kernel};
  TimingCache cache;
  PlanOptions options;
  options.measure = std::ref(contrary);
  options.cache = &cache;
  options.machine = "here";
  Plan plan = by_rule;
  EXPECT_EQ(retime(plan, options), 1);
  const Step& step = plan.programs[0].steps[0];
  EXPECT_NE(step.kernel, by_rule.programs[0].steps[0].kernel);
  EXPECT_EQ(step.algorithm, "words of " + step.kernel);
  EXPECT_GT(step.microseconds, 0);
  for (const Candidate& candidate : step.candidates) EXPECT_TRUE(candidate.microseconds > 0 || !candidate.reason.empty());
  const std::size_t measured = contrary.measured.size();
  EXPECT_GE(measured, 2u);

  EXPECT_EQ(retime(plan, options), 0);  // it has its time
  Plan again = by_rule;
  EXPECT_EQ(retime(again, options), 1);  // the cache knows
  EXPECT_EQ(to_json(again), to_json(plan));
  EXPECT_EQ(digest(build_plan(*product(), options)), digest(plan));  // in a build too
  EXPECT_EQ(contrary.measured.size(), measured);
}

TEST(Retime, WhatWasAskedForByNameStays) {
  Plan plan = build_plan(*product());
  Contrary contrary{plan.programs[0].steps[0].kernel};
  PlanOptions options;
  options.measure = std::ref(contrary);
  options.kernels = {plan.programs[0].steps[0].kernel};
  const std::string before = to_json(plan);
  EXPECT_EQ(retime(plan, options), 0);
  EXPECT_EQ(to_json(plan), before);
  EXPECT_TRUE(contrary.measured.empty());
}

// No kernel that multiplies can put its result where an operand is.
TEST(Retime, ResultsLieWhereTheyDid) {
  Plan plan = build_plan(*product());
  Program& program = plan.programs[0];
  program.values[static_cast<std::size_t>(program.steps[0].results[0])].alias_of = program.steps[0].operands[0];
  Contrary contrary{program.steps[0].kernel};
  PlanOptions options;
  options.measure = std::ref(contrary);
  const std::string before = to_json(plan);
  EXPECT_EQ(retime(plan, options), 0);
  EXPECT_EQ(to_json(plan), before);
  EXPECT_TRUE(contrary.measured.empty());
}

TEST(Retime, AKernelThatCannotBeTimedIsLeftOutAndItsRankNamed) {
  if (kernels_that_multiply().size() < 2) GTEST_SKIP() << kNoChoice;
  Plan plan = build_plan(*product());
  const std::string broken = plan.programs[0].steps[0].kernel;
  PlanOptions options;
  options.measure = [&](const Trial& trial) -> Timing {
    if (trial.kernel.name == broken) throw Error(ErrorCode::internal, "it broke", {}, 1);
    return {5, {}};
  };
  EXPECT_EQ(retime(plan, options), 1);
  const Step& step = plan.programs[0].steps[0];
  EXPECT_NE(step.kernel, broken);
  const auto found = std::ranges::find(step.candidates, broken, &Candidate::kernel);
  ASSERT_NE(found, step.candidates.end());
  EXPECT_NE(found->reason.find("it broke"), std::string::npos) << found->reason;
  EXPECT_NE(found->reason.find("rank 1"), std::string::npos) << found->reason;

  options.measure = [](const Trial&) -> Timing { throw Error(ErrorCode::internal, "it broke", {}, 1); };
  Plan all = build_plan(*product());
  EXPECT_EQ(retime(all, options), 0);
  EXPECT_EQ(all.programs[0].steps[0].kernel, broken);  // nothing is known against it

  options.measure = [](const Trial&) -> Timing { throw Error(ErrorCode::interrupted, "stop"); };
  EXPECT_EQ(thrown([&] { retime(all, options); }).code(), ErrorCode::interrupted);
}

TEST(Retime, RanksSendWhatTheySent) {
  const Engine engine = build(model_path("sdpa_causal_op23"), on("cp=2"));
  Plan plan = engine.data().plan();
  const Plan before = plan;
  std::vector<int> ranks;
  PlanOptions options;
  options.measure = [&](const Trial& trial) {
    ranks.push_back(trial.ranks);
    return Timing{1.0 / static_cast<double>(ranks.size()), {}};  // the last one wins
  };
  retime(plan, options);
  EXPECT_EQ(digest(plan.collectives), digest(before.collectives));
  int other = 0;
  for (std::size_t s = 0; s < plan.programs[0].steps.size(); ++s) {
    const Step& step = plan.programs[0].steps[s];
    const Step& was = before.programs[0].steps[s];
    EXPECT_EQ(step.results, was.results);
    if (!step.communicates) continue;
    for (const Candidate& candidate : step.candidates) other += candidate.reason.find("send something else") != std::string::npos;
  }
  EXPECT_TRUE(other > 0 || std::ranges::find(ranks, 2) == ranks.end());
}

// An engine file that was built by rule, and a timing cache that turns its choices round.
class TimedLoad : public ::testing::Test {
 protected:
  void make(const std::string& path, const BuildOptions& by_rule, const std::string& name = "e.tandem") {
    path_ = (folder_.path() / name).string();
    build(path, by_rule).save(path_);
    cache_ = (folder_.path() / "times.json").string();
    options_.timing_cache = cache_;
    options_.threads = 1;
  }

  Json cache() const { return Json::parse(std::ifstream(cache_)); }

  // Measures, and then says in the cache that the kernel which the rule takes for products is slow. False where there is no other.
  bool turn() {
    time_kernels(load_engine(path_), options_);
    if (kernels_that_multiply().size() < 2) return false;
    Json turned = cache();
    for (auto& [key, time] : turned["microseconds"].items())
      time = key.find(" " + kernels_that_multiply()[0] + " ranks") == std::string::npos ? 1.5 : 3.5;
    std::ofstream(cache_) << turned.dump(1) << "\n";
    return true;
  }

  TemporaryFolder folder_;
  std::string path_, cache_;
  TimingOptions options_;
};

std::vector<std::string> choices(const Engine& engine) {
  std::vector<std::string> list;
  for (const auto& plan : engine.data().plans)
    for (const Program& program : plan->programs)
      for (const Step& step : program.steps) list.push_back(step.kernel + " " + step.algorithm);
  return list;
}

RankArrays run(const Engine& engine, const Arrays& inputs, bool processes) {
  TeamOptions options;
  if (processes) options.rank_command = {"/proc/self/exe", "rank"};
  options.threads = 1;
  return Model(engine, options).run(inputs);
}

void expect_near(const RankArrays& a, const RankArrays& b, double tolerance) {
  ASSERT_EQ(a.size(), b.size());
  for (const auto& [name, list] : a)
    for (std::size_t r = 0; r < list.size(); ++r) {
      const Tensor x = to_tensor(list[r]), y = to_tensor(b.at(name).at(r));
      ASSERT_EQ(x.shape(), y.shape());
      for (std::int64_t i = 0; i < x.count(); ++i) ASSERT_LE(std::fabs(x.at(i) - y.at(i)), tolerance) << name;
    }
}

TEST_F(TimedLoad, ChoosesAsABuildThatTimesDoes) {
  BuildOptions options = on("tp=2");
  make(model_path("bert_legacy"), options);
  options.timed = true;
  options.threads = 1;
  options.timing_cache = cache_;
  const Engine built = build(model_path("bert_legacy"), options);
  const Json times = cache();
  const Engine loaded = load_engine(path_), timed = time_kernels(loaded, options_);
  EXPECT_EQ(choices(timed), choices(built));
  EXPECT_EQ(cache(), times);  // nothing new was measured
  EXPECT_EQ(digest(timed.data().plan()), digest(built.data().plan()));
  EXPECT_EQ(load_engine(path_).describe(), loaded.describe());  // what was given is as it was
}

TEST_F(TimedLoad, MeasuresOnceAndRunsOnThreadsAndProcesses) {
  make(model_path("bert_legacy"), on("tp=2"));
  const Engine by_rule = load_engine(path_);
  if (!turn()) GTEST_SKIP() << kNoChoice;
  const Json times = cache();
  const Engine timed = time_kernels(by_rule, options_);
  EXPECT_EQ(cache(), times);  // the second load measures nothing
  int products = 0;
  for (const Step& step : timed.data().plan().programs[0].steps) {
    if (step.op != "MatMul" || step.microseconds == 0) continue;
    ++products;
    EXPECT_NE(step.kernel, kernels_that_multiply()[0]);
    EXPECT_EQ(step.microseconds, 1.5);
  }
  EXPECT_GT(products, 0);
  EXPECT_NE(timed.data().plan().built_with.at("options").find("timed"), std::string::npos);
  const Arrays inputs = by_rule.random_inputs();
  const RankArrays threads = run(timed, inputs, false), processes = run(timed, inputs, true);
  expect_near(threads, processes, 0);
  expect_near(threads, run(by_rule, inputs, false), 1e-4);
}

// A rank process takes the weights of the file, and the plan that it is told.
TEST_F(TimedLoad, ARankRunsThePlanThatItIsGiven) {
  make(model_path("mlp_legacy"), on("tp=2"));
  if (!turn()) GTEST_SKIP() << kNoChoice;
  const Engine timed = time_kernels(load_engine(path_), options_);
  const std::uint64_t wanted = digest(timed.data().plan());
  EXPECT_NE(wanted, digest(load_engine(path_).data().plan()));
  const auto rank = RankEngine::open(path_, 1, {}, to_json(timed.data().plan()));
  EXPECT_EQ(rank->plan_digest(), wanted);
  const auto own = RankEngine::open(path_, 1);
  EXPECT_EQ(own->plan_digest(), digest(load_engine(path_).data().plan()));
}

TEST_F(TimedLoad, ASavedOneIsNotTimedAgain) {
  make(model_path("mlp_legacy"), on("tp=2"));
  const Engine timed = time_kernels(load_engine(path_), options_);
  const std::string saved = (folder_.path() / "timed.tandem").string();
  timed.save(saved);
  options_.timing_cache = (folder_.path() / "none.json").string();
  const Engine again = time_kernels(load_engine(saved), options_);
  EXPECT_EQ(choices(again), choices(timed));
  EXPECT_FALSE(std::filesystem::exists(options_.timing_cache));  // nothing was measured
  const Arrays inputs = timed.random_inputs();
  expect_near(run(again, inputs, true), run(timed, inputs, false), 0);
}

TEST_F(TimedLoad, FilesOfRanksAreTimedTogether) {
  BuildOptions options;
  options.ranks = 2;
  make(model_path("sharded_mlp_rank{rank}"), options, "e{rank}.tandem");
  const Engine by_rule = load_engine(path_), timed = time_kernels(by_rule, options_);
  ASSERT_EQ(timed.data().plans.size(), 2u);
  EXPECT_EQ(choices(time_kernels(by_rule, options_)), choices(timed));
  const Arrays inputs = by_rule.random_inputs();
  const RankArrays processes = run(timed, inputs, true);
  expect_near(run(timed, inputs, false), processes, 0);
  expect_near(run(by_rule, inputs, false), processes, 1e-5);
}

// One rank has the engine as it is in the file, the other one timed it.
TEST_F(TimedLoad, RanksThatChoseApartAreRefused) {
  make(model_path("mlp_legacy"), on("tp=2"));
  if (!turn()) GTEST_SKIP() << kNoChoice;
  const Engine engines[] = {load_engine(path_), time_kernels(load_engine(path_), options_)};
  testing::expect_plans_differ(engines);
}

TEST_F(TimedLoad, AFileThatIsNoCacheIsNamed) {
  make(model_path("mlp_legacy"), on(""));
  std::ofstream(cache_) << "thesis";
  const Error error = thrown([&] { time_kernels(load_engine(path_), options_); });
  EXPECT_EQ(error.code(), ErrorCode::invalid_argument);
  expect_says(error, cache_ + " is no timing cache");
}

TEST_F(TimedLoad, AnEngineWithoutWeightsSaysWhatToDo) {
  BuildOptions options = on("tp=2");
  options.refittable = true;
  make(model_path("mlp_legacy"), options);
  const std::string bare = (folder_.path() / "bare.tandem").string();
  load_engine(path_).save(bare, {.weights = false});
  const Error error = thrown([&] { time_kernels(load_engine(bare), options_); });
  EXPECT_EQ(error.code(), ErrorCode::mismatch);
  expect_says(error, bare + " was written without weights; give it some with tandem refit");
  EXPECT_FALSE(std::filesystem::exists(cache_));
}

TEST_F(TimedLoad, TellsHowFarItIsAndCanBeStopped) {
  make(model_path("mlp_legacy"), on("tp=2"));
  std::vector<double> told;
  options_.progress = [&](std::string_view what, double done) {
    EXPECT_EQ(what, "choosing kernels for " + path_);
    told.push_back(done);
  };
  time_kernels(load_engine(path_), options_);
  ASSERT_FALSE(told.empty());
  EXPECT_TRUE(std::ranges::is_sorted(told));
  EXPECT_LT(told.back(), 1);
  std::filesystem::remove(cache_);
  options_.progress = [](std::string_view, double) { fail(ErrorCode::interrupted, "stopped"); };
  EXPECT_EQ(thrown([&] { time_kernels(load_engine(path_), options_); }).code(), ErrorCode::interrupted);
  EXPECT_FALSE(std::filesystem::exists(cache_));
}

TEST_F(TimedLoad, OpenModelDoesItWhenAsked) {
  make(model_path("mlp_legacy"), on("tp=2"));
  BuildOptions options;
  options.timing_cache = cache_;
  options.threads = 1;
  EXPECT_EQ(choices(open_model(path_, options)), choices(load_engine(path_)));
  EXPECT_FALSE(std::filesystem::exists(cache_));
  options.timed = true;
  EXPECT_EQ(choices(open_model(path_, options)), choices(time_kernels(load_engine(path_), options_)));
}

}  // namespace
}  // namespace tandem
