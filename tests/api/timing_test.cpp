// Times from which kernels and algorithms are chosen, and the file that keeps them.
#include <gtest/gtest.h>

#include <fstream>

#include "build/build.h"
#include "build/step_timer.h"
#include "build/timing_cache.h"
#include "core/check.h"
#include "graph/builder.h"
#include "ops/kernel.h"
#include "ops/ops.h"
#include "plan/engine_file.h"
#include "runtime/rank_engine.h"
#include "support/temporary_folder.h"
#include "support/thrown.h"

namespace tandem {
namespace {

using testing::TemporaryFolder;
using testing::thrown;

void write(const std::filesystem::path& path, const std::string& text) { std::ofstream(path) << text; }

std::unique_ptr<Module> product() {
  auto module = std::make_unique<Module>(all_ops());
  Graph& graph = module->add_graph("main");
  Value* a = graph.add_input("a", {DType::f32, {Dim::symbol("B"), 8}});
  graph.outputs().push_back({"y", GraphBuilder(graph).add("MatMul", {a, graph.add_input("b", {DType::f32, {8, 4}})})});
  graph.profiles.push_back({{"B", {1, 16, 64}}});
  return module;
}

TEST(TimingCache, KeepsTimesAndAlgorithms) {
  const TemporaryFolder folder;
  const auto path = folder.path() / "times.json";
  {
    TimingCache cache(path);
    cache.add("plain", {2.5, {}});
    cache.add("with words", {1.25, "id=66 tile=18"});
    cache.add("never", {0, "x"});
    cache.save();
  }
  const TimingCache again(path);
  ASSERT_TRUE(again.find("plain") && again.find("with words"));
  EXPECT_EQ(again.find("plain")->microseconds, 2.5);
  EXPECT_EQ(again.find("plain")->algorithm, "");
  EXPECT_EQ(again.find("with words")->microseconds, 1.25);
  EXPECT_EQ(again.find("with words")->algorithm, "id=66 tile=18");
  EXPECT_FALSE(again.find("never"));
}

TEST(TimingCache, ReadsFilesWithoutAlgorithmsAndRefusesOthers) {
  const TemporaryFolder folder;
  const auto path = folder.path() / "times.json";
  write(path, R"({"tandem_timing_cache": 1, "microseconds": {"a": 3}})");
  EXPECT_EQ(TimingCache(path).find("a")->microseconds, 3);
  for (const char* algorithms : {"[]", R"({"a": 1})", R"({"b": "id=1"})"}) {
    write(path, fmt::format(R"({{"tandem_timing_cache": 1, "microseconds": {{"a": 3}}, "algorithms": {}}})", algorithms));
    EXPECT_EQ(thrown([&] { TimingCache{path}; }).code(), ErrorCode::invalid_argument) << algorithms;
  }
}

TEST(StepTimer, AKernelThatPacksWeightsIsTakenWhereItIsFasterByMoreThanTimesDiffer) {
  const auto pack = [](const OpCall&, std::span<const std::byte* const>) -> std::unique_ptr<Packed> { return nullptr; };
  const KernelDef usual = {.name = "usual"}, packing = {.name = "packing", .pack = pack}, other = {.name = "other"};
  OpCall call;
  call.op = all_ops().find("MatMul");
  call.attributes = Attributes(&call.op->fields);
  for (const std::int64_t rows : {4, 8}) call.operands.emplace_back(Type{DType::f32, {rows, 8}});
  call.results = call.op->infer(call);
  const auto taken = [&](const std::vector<const KernelDef*>& kernels, const std::vector<double>& times) {
    PlanOptions options;
    options.measure = [&](const Trial& trial) {
      return Timing{times.at(static_cast<std::size_t>(std::ranges::find(kernels, &trial.kernel) - kernels.begin())), ""};
    };
    Choice choice;
    for (const KernelDef* kernel : kernels) choice.candidates.push_back({std::string(kernel->name), 0, ""});
    StepTimer(options, false, false).time(call, {false, true}, 1, kernels, choice);
    return choice.kernel->name;
  };
  EXPECT_EQ(taken({&usual, &packing}, {100, 96}), "usual");
  EXPECT_EQ(taken({&usual, &packing}, {100, 95}), "packing");
  EXPECT_EQ(taken({&usual, &other}, {100, 99}), "other");
  EXPECT_EQ(taken({&packing, &usual}, {100, 101}), "packing");
  EXPECT_EQ(taken({&usual, &packing, &other}, {100, 96, 97}), "other");
}

TEST(Chooser, TheFastestKernelWithItsAlgorithmIsInThePlanAndTimedOnce) {
  std::vector<std::string> timed;
  PlanOptions options;
  options.measure = [&](const Trial& trial) {
    timed.emplace_back(trial.kernel.name);
    EXPECT_EQ(trial.call.operand(0).dims[0].constant(), 16);
    return Timing{trial.kernel.name == "plain" ? 1000.0 : 10.0 + static_cast<double>(timed.size()),
                  "words of " + std::string(trial.kernel.name)};
  };
  TimingCache cache;
  options.cache = &cache;
  const Plan plan = build_plan(*product(), options);
  const Step& step = plan.programs.at(0).steps.at(0);
  ASSERT_FALSE(timed.empty());
  EXPECT_EQ(step.kernel, timed.front());
  EXPECT_EQ(step.microseconds, 11);
  EXPECT_EQ(step.algorithm, "words of " + step.kernel);
  EXPECT_EQ(plan_from_json(to_json(plan), all_ops()).programs[0].steps[0].algorithm, step.algorithm);
  const std::size_t before = timed.size();
  EXPECT_EQ(digest(build_plan(*product(), options)), digest(plan));
  EXPECT_EQ(timed.size(), before);  // the cache knows

  // Ranks that would run another algorithm are not the same.
  Plan other = plan;
  other.programs[0].steps[0].algorithm += "!";
  EXPECT_NE(digest(other), digest(plan));
}

// A plan from outside may say of any kernel that it starts early.
TEST(Edges, KernelsThatDoNotWaitAreNotStartedEarly) {
  auto module = product();
  Graph& graph = module->main();
  graph.outputs()[0].value =
      GraphBuilder(graph).add("Transpose", {graph.outputs()[0].value}, {{"permutation", std::vector<std::int64_t>{1, 0}}});
  Plan plan = build_plan(*module);
  ASSERT_EQ(plan.programs[0].steps.size(), 2u);
  const auto opened = [&] {
    std::vector<std::byte> bytes;
    write_engine([&](std::span<const std::byte> part) { bytes.insert(bytes.end(), part.begin(), part.end()); }, plan, {});
    Tensor tensor(DType::u8, {static_cast<std::int64_t>(bytes.size())});
    std::ranges::copy(bytes, tensor.mutable_data());
    parse_engine_file(tensor);
  };
  opened();
  plan.programs[0].steps[1].starts_early = true;
  const Error error = thrown(opened);
  EXPECT_EQ(error.code(), ErrorCode::invalid_engine);
  EXPECT_NE(error.message().find("cannot start before"), std::string::npos) << error.what();
}

}  // namespace
}  // namespace tandem
