// Engines for a GPU that were built without one, timed where they are loaded.
#include <cuda_runtime.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <fstream>
#include <nlohmann/json.hpp>

#include "api/run/engine_data.h"
#include "device/device.h"
#include "gpu/here.h"
#include "support/differences.h"
#include "support/temporary_folder.h"
#include "support/thrown.h"
#include "tandem/tandem.h"

namespace tandem {
namespace {

using testing::has_gpu;
using testing::largest_difference;
using testing::model_path;
using Json = nlohmann::json;

// By rule, as where there is no GPU, in f16, whose products cuBLASLt does in several ways.
Engine built_for(const std::string& target) {
  BuildOptions options;
  options.device = "cuda";
  options.target = target;
  options.dtype = "f16";
  return build(model_path("bert_dynamo"), options);
}

int timed_steps(const Engine& engine) {
  int count = 0;
  for (const Step& step : engine.data().plan().programs[0].steps) count += step.microseconds > 0;
  return count;
}

TEST(RetimeOnGpu, AnEngineForATargetGetsTimesWhenItIsLoaded) {
  if (!has_gpu()) GTEST_SKIP() << "this machine has no GPU";
  const testing::TemporaryFolder folder;
  const std::string path = (folder.path() / "e.tandem").string();
  built_for(open_device("cuda", 0)->target()).save(path);
  const Engine by_rule = load_engine(path);
  EXPECT_EQ(timed_steps(by_rule), 0);
  TimingOptions options;
  options.timing_cache = (folder.path() / "times.json").string();
  const Engine timed = time_kernels(by_rule, options);
  EXPECT_GT(timed_steps(timed), 0);
  const Json cache = Json::parse(std::ifstream(options.timing_cache));
  EXPECT_FALSE(cache["microseconds"].empty());
  const Engine again = time_kernels(load_engine(path), options);
  EXPECT_EQ(Json::parse(std::ifstream(options.timing_cache)), cache);  // nothing was measured
  EXPECT_EQ(again.describe(), timed.describe());

  const Arrays inputs = by_rule.random_inputs();
  const RankArrays want = Model(by_rule).run(inputs);
  Model model(timed);
  EXPECT_LE(largest_difference(want, model.run(inputs)), 1e-2);
  EXPECT_EQ(largest_difference(model.run(inputs), model.run(inputs)), 0);  // what was recorded is replayed
}

TEST(RetimeOnGpu, ASavedOneKeepsItsTimes) {
  if (!has_gpu()) GTEST_SKIP() << "this machine has no GPU";
  const testing::TemporaryFolder folder;
  const std::string path = (folder.path() / "e.tandem").string();
  const Engine timed = time_kernels(built_for(open_device("cuda", 0)->target()));
  timed.save(path);
  const Engine loaded = load_engine(path, {.strict = true});
  EXPECT_EQ(timed_steps(loaded), timed_steps(timed));
  const Arrays inputs = timed.random_inputs();
  EXPECT_EQ(largest_difference(Model(loaded).run(inputs), Model(timed).run(inputs)), 0);
}

TEST(RetimeOnGpu, AnotherGpuIsRefusedBeforeAnythingIsTimed) {
  if (!has_gpu()) GTEST_SKIP() << "this machine has no GPU";
  const std::string other = open_device("cuda", 0)->target() == "sm_90" ? "sm_80a" : "sm_90a";
  EXPECT_EQ(testing::thrown([&] { time_kernels(built_for(other)); }).code(), ErrorCode::mismatch);
}

TEST(RetimeOnGpu, WithoutAGpuThatIsSaid) {
  if (has_gpu()) GTEST_SKIP() << "this machine has a GPU";
  EXPECT_EQ(testing::thrown([] { time_kernels(built_for("sm_90a")); }).code(), ErrorCode::unsupported);
}

}  // namespace
}  // namespace tandem
