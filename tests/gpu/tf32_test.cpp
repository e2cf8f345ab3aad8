// Whole engines with and without TF32.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <nlohmann/json.hpp>

#include "api/run/engine_data.h"
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

Engine built(const std::string& model, const std::string& device, bool tf32) {
  BuildOptions options;
  options.device = device;
  options.tf32 = tf32;
  return build(model_path(model), options);
}

class Tf32OnGpu : public ::testing::TestWithParam<const char*> {};

TEST_P(Tf32OnGpu, EnginesRoundOnlyWhereAsked) {
  if (!has_gpu()) GTEST_SKIP() << "this machine has no GPU";
  const Engine plain = built(GetParam(), "cuda", false), asked = built(GetParam(), "cuda", true);
  EXPECT_FALSE(Json::parse(plain.describe())["tf32"].get<bool>());
  EXPECT_TRUE(Json::parse(asked.describe())["tf32"].get<bool>());
  for (const std::string& notice : asked.notices()) EXPECT_EQ(notice.find("TF32"), std::string::npos) << notice;
  const Arrays inputs = plain.random_inputs(3);
  const RankArrays oracle = Model(built(GetParam(), "cpu", false)).run(inputs);
  EXPECT_LT(largest_difference(oracle, Model(plain).run(inputs)), 1e-4);
  const RankArrays rounded = Model(asked).run(inputs);
  EXPECT_LT(largest_difference(oracle, rounded), 1e-2);

  const testing::TemporaryFolder folder;
  const std::string path = (folder.path() / "e.tandem").string();
  asked.save(path);
  EXPECT_EQ(largest_difference(rounded, Model(load_engine(path)).run(inputs)), 0);
}

INSTANTIATE_TEST_SUITE_P(Models, Tf32OnGpu, ::testing::Values("mlp_legacy", "bert_dynamo", "resnet_dynamo"));

// Needs no GPU.
TEST(Tf32OnGpu, EnginesForAGpuElsewhereKeepIt) {
  BuildOptions options;
  options.target = "sm_90a";
  options.device = "cuda";
  const Engine plain = build(model_path("mlp_legacy"), options);
  options.tf32 = true;
  const Engine asked = build(model_path("mlp_legacy"), options);
  const testing::TemporaryFolder folder;
  const std::string path = (folder.path() / "e.tandem").string();
  asked.save(path);
  const Json before = Json::parse(plain.describe()), after = Json::parse(load_engine(path).describe());
  EXPECT_FALSE(before["tf32"].get<bool>());
  EXPECT_TRUE(after["tf32"].get<bool>());
  EXPECT_EQ(after["built_with"]["options"], "tf32");
  EXPECT_NE(after["digest"], before["digest"]);
  EXPECT_EQ(asked.notices(), plain.notices());
}

// Large enough for cuBLASLt to take tensor cores: it did round.
TEST(Tf32OnGpu, AskedForItIsUsed) {
  if (!has_gpu()) GTEST_SKIP() << "this machine has no GPU";
  constexpr std::int64_t n = 512;
  const auto made = [](bool tf32) {
    Network network;
    network.output("y", network.add("MatMul", {network.input("a", DType::f32, {n, n}), network.input("b", DType::f32, {n, n})}));
    return build(network, {.device = "cuda", .tf32 = tf32});
  };
  const Engine plain = made(false), asked = made(true);
  const Arrays inputs = plain.random_inputs(1);
  const Tensor a = to_tensor(inputs.at("a")), b = to_tensor(inputs.at("b"));
  const auto error_of = [&](const Engine& engine) {
    const Tensor y = to_tensor(Model(engine).run(inputs).at("y")[0]);
    double worst = 0;
    for (std::int64_t i = 0; i < n; i += 37)
      for (std::int64_t j = 0; j < n; j += 41) {
        double sum = 0, magnitude = 0;
        for (std::int64_t k = 0; k < n; ++k) {
          const double term = a.at(i * n + k) * b.at(k * n + j);
          sum += term, magnitude += std::fabs(term);
        }
        worst = std::max(worst, std::fabs(y.at(i * n + j) - sum) / magnitude);
      }
    return worst;
  };
  EXPECT_LE(error_of(plain), 1e-6);
  const double error = error_of(asked);
  EXPECT_GT(error, 1e-6);
  EXPECT_LE(error, 0x1p-9 + 0x1p-20 + n * 0x1p-24);
}

// Compared with f32 of the same device, and allowed what TF32 loses; without it, nothing more.
TEST(Tf32OnGpu, VerifyAllowsWhatItLoses) {
  if (!has_gpu()) GTEST_SKIP() << "this machine has no GPU";
  for (const bool tf32 : {false, true}) {
    VerifyOptions options;
    options.build.device = "cuda";
    options.build.tf32 = tf32;
    for (const MeshCheck& check : verify(model_path("bert_dynamo"), options)) {
      EXPECT_TRUE(check.passed) << check.error;
      for (const OutputCheck& output : check.outputs) EXPECT_EQ(output.tolerance, tf32 ? 1e-2 : 1e-4) << output.name;
    }
  }
}

}  // namespace
}  // namespace tandem
