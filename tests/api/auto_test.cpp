// The choice of a mesh by cost.
#include <gtest/gtest.h>

#include "api/build/auto.h"
#include "core/check.h"
#include "import/onnx/import.h"

namespace tandem {
namespace {

std::unique_ptr<Module> model(const std::string& name, ImportOptions options = {}) {
  return import_onnx(std::filesystem::path(TANDEM_MODELS) / (name + ".onnx"), options);
}

TEST(Auto, TriesEveryMeshOfTheRanksAndOrdersThemByTime) {
  const auto module = model("bert_dynamo");
  const std::vector<Cost> costs = alternatives(*module, {}, 4);
  ASSERT_EQ(costs.size(), 6U);  // dp=4 cp=4 tp=4 and the three pairs
  for (std::size_t i = 1; i < costs.size(); ++i) EXPECT_LE(costs[i - 1].seconds, costs[i].seconds);
  for (const Cost& cost : costs) {
    EXPECT_EQ(cost.refused, "") << cost.mesh.to_string();
    EXPECT_EQ(cost.mesh.size(), 4);
  }
}

TEST(Auto, ABatchOfManyIsSplitAndABatchOfOneIsNot) {
  const Machine fast = {.link = 1e15, .latency = 0};  // splitting costs nothing
  const auto many = model("bert_dynamo", {.shapes = {{"input_ids", {{1, 32, 64}, {1, 16, 64}}}}});
  EXPECT_EQ(alternatives(*many, {}, 2).at(0).mesh.to_string(), "dp=2");
  const auto one = model("bert_dynamo", {.shapes = {{"input_ids", {{1, 1, 64}, {1, 64, 64}}}}});
  EXPECT_EQ(alternatives(*one, {}, 2, fast).back().mesh.to_string(), "dp=2");
}

TEST(Auto, WhatDoesNotFitIsRefused) {
  const auto module = model("gpt2_legacy");
  double most = 0, least = 1e30;
  for (const Cost& cost : alternatives(*module, {}, 2)) most = std::max(most, cost.bytes), least = std::min(least, cost.bytes);
  ASSERT_LT(least, most);  // tensor parallel ranks hold less
  const std::vector<Cost> costs = alternatives(*module, {}, 2, {.memory = (least + most) / 2});
  EXPECT_EQ(costs.front().refused, "");
  EXPECT_NE(costs.back().refused.find("do not fit"), std::string::npos) << costs.back().refused;
}

TEST(Auto, NoMeshAtAllIsAnErrorWithEveryReason) {
  const auto module = model("mlp_legacy", {.shapes = {{"x", {{4, 4, 4}, {32, 32, 32}}}}});
  std::string notice;
  EXPECT_EQ(choose_mesh(*module, {}, 2, notice).size(), 2);
  EXPECT_NE(notice.find("cp=2"), std::string::npos) << notice;
  const auto conv = model("mlp_legacy");
  try {
    choose_mesh(*conv, {.pass = {.io = {{"x", "local"}}}}, 2, notice);
    FAIL() << "accepted";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::unsupported);
    EXPECT_NE(std::string(error.what()).find("no mesh of 2 ranks"), std::string::npos) << error.what();
  }
}

}  // namespace
}  // namespace tandem
