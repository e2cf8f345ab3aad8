// The choice of TF32 on its way from the options of a build to the engine file, the timing cache and the check of a model; what it cannot
// be joined with. What GPUs make of it: tests/kernels/tf32_test.cpp and tests/gpu/tf32_test.cpp.
#include <gtest/gtest.h>

#include <cstring>
#include <nlohmann/json.hpp>

#include "api/models.h"
#include "api/plans_differ.h"
#include "api/run/engine_data.h"
#include "build/build.h"
#include "build/retime.h"
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

BuildOptions asking(const std::string& mesh = "") {
  BuildOptions options = on(mesh);
  options.tf32 = true;
  return options;
}

// An engine whose plan says that products may round, as one for GPUs does, but for CPU ranks.
Engine rounding(const Engine& engine) {
  auto data = std::make_shared<EngineData>(engine.data());
  for (std::shared_ptr<const Plan>& plan : data->plans) {
    Plan changed = *plan;
    changed.tf32 = true;
    plan = std::make_shared<const Plan>(std::move(changed));
  }
  data->own_plan = true;
  return Engine(std::move(data));
}

std::unique_ptr<Module> product(DType dtype) {
  auto module = std::make_unique<Module>(all_ops());
  Graph& graph = module->add_graph("main");
  Value* a = graph.add_input("a", {dtype, {16, 8}});
  graph.outputs().push_back({"y", GraphBuilder(graph).add("MatMul", {a, graph.add_input("b", {dtype, {8, 4}})})});
  return module;
}

TEST(Tf32, ChangesNothingOnCpusAndSaysSo) {
  const Engine plain = build(model_path("mlp_legacy"), on("tp=2")), asked = build(model_path("mlp_legacy"), asking("tp=2"));
  const Json report = Json::parse(asked.describe());
  EXPECT_FALSE(report["tf32"].get<bool>());
  EXPECT_EQ(report["built_with"]["options"], "tf32");
  EXPECT_EQ(report["digest"], Json::parse(plain.describe())["digest"]);
  ASSERT_EQ(asked.notices().size(), plain.notices().size() + 1);
  EXPECT_NE(asked.notices().back().find("TF32 changes nothing on CPU ranks"), std::string::npos) << asked.notices().back();
  const Arrays inputs = plain.random_inputs(3);
  const RankArrays a = Model(plain).run(inputs), b = Model(asked).run(inputs);
  for (const auto& [name, list] : a) EXPECT_EQ(std::memcmp(list[0].data.get(), b.at(name)[0].data.get(), list[0].size_bytes()), 0) << name;
}

TEST(Tf32, CannotBeExact) {
  BuildOptions options = asking();
  options.exact = true;
  const Error error = thrown([&] { build(model_path("mlp_legacy"), options); });
  EXPECT_EQ(error.code(), ErrorCode::invalid_argument);
  expect_says(error, "both exact and TF32 are asked for");
  expect_says(thrown([&] { verify(model_path("mlp_legacy"), {.build = options}); }), "both exact and TF32 are asked for");
}

TEST(Tf32, IsKeptInPlansAndEngineFiles) {
  PlanOptions options;
  const Plan plain = build_plan(*product(DType::f32), options);
  EXPECT_FALSE(plain.tf32);
  options.tf32 = true;
  const Plan plan = build_plan(*product(DType::f32), options);
  EXPECT_TRUE(plan_from_json(to_json(plan), all_ops()).tf32);
  EXPECT_EQ(to_json(plain).find("tf32"), std::string::npos) << "files of engines without it stay what they were";
  EXPECT_NE(digest(plan), digest(plain));

  const TemporaryFolder folder;
  const std::string path = (folder.path() / "e.tandem").string();
  rounding(build(model_path("mlp_legacy"))).save(path);
  EXPECT_TRUE(Json::parse(load_engine(path).describe())["tf32"].get<bool>());
}

TEST(Tf32, RanksThatDifferAreRefused) {
  const Engine plain = build(model_path("mlp_legacy"), on("tp=2"));
  const Engine engines[] = {plain, rounding(plain)};
  testing::expect_plans_differ(engines);
}

// Times with and without it are kept apart, where there is f32 to round.
TEST(Tf32, IsPartOfWhatTimesAreKeptBy) {
  TimingCache cache;
  std::vector<bool> measured;
  PlanOptions options;
  options.cache = &cache;
  options.kernels = {};
  options.measure = [&](const Trial& trial) {
    measured.push_back(trial.tf32);
    return Timing{1.0 + static_cast<double>(measured.size()), {}};
  };
  const auto measures = [&](DType dtype, bool tf32) {
    options.tf32 = tf32;
    measured.clear();
    build_plan(*product(dtype), options);
    return measured;
  };
  const std::size_t kernels = measures(DType::f32, false).size();
  if (kernels == 0) GTEST_SKIP() << "this build has one kernel that multiplies: nothing is timed";
  EXPECT_EQ(measures(DType::f32, true), std::vector<bool>(kernels, true));
  EXPECT_TRUE(measures(DType::f32, true).empty() && measures(DType::f32, false).empty());
  measures(DType::f16, false);
  EXPECT_TRUE(measures(DType::f16, true).empty());

  // An engine that is timed where it is loaded is timed as it was built.
  options.tf32 = true;
  options.measure = {};
  Plan plan = build_plan(*product(DType::f32), options);
  TimingCache other;
  PlanOptions later;
  later.cache = &other;
  measured.clear();
  later.measure = [&](const Trial& trial) {
    measured.push_back(trial.tf32);
    return Timing{1, {}};
  };
  retime(plan, later);
  EXPECT_EQ(measured, std::vector<bool>(kernels, true));
}

// 1e-4 in f32, as the cases of the model say; 1e-2, as with f16, only where products may have rounded.
TEST(Tf32, OnlyWhatRoundsIsAllowedMore) {
  const std::string model = model_path("mlp_legacy"), cases = std::string(TANDEM_MODELS) + "/mlp_legacy.safetensors";
  const TemporaryFolder folder;
  const std::string path = (folder.path() / "e.tandem").string();
  rounding(build(model)).save(path);
  const auto allowed = [](const std::string& what, const VerifyOptions& options) {
    double most = 0;
    for (const MeshCheck& check : verify(what, options)) {
      EXPECT_TRUE(check.passed) << check.error;
      for (const OutputCheck& output : check.outputs) most = std::max(most, output.tolerance);
    }
    return most;
  };
  EXPECT_EQ(allowed(model, {.meshes = {"tp=2"}, .build = asking()}), 1e-4);  // CPU ranks
  EXPECT_EQ(allowed(model, {.cases = cases, .build = asking()}), 1e-4);
  EXPECT_EQ(allowed(path, {.cases = cases}), 1e-2);
}

}  // namespace
}  // namespace tandem
