// Recorded models with their sequence split, every form of attention asked for in turn, against the recorded outputs.
#include <gtest/gtest.h>

#include "build/build.h"
#include "core/check.h"
#include "import/onnx/import.h"
#include "passes/pipeline.h"
#include "support/cases.h"
#include "team/team.h"
#include "team/weights.h"

namespace tandem {
namespace {

using Asked = std::tuple<const char*, const char*, const char*>;  // model, mesh, algorithm

std::shared_ptr<Module> sharded(const std::string& model, const std::string& mesh, const std::string& algorithm) {
  std::shared_ptr<Module> module = import_onnx(std::filesystem::path(TANDEM_MODELS) / (model + ".onnx"), {});
  PipelineOptions pipeline;
  pipeline.pass.mesh = Mesh::parse(mesh);
  run_pipeline(*module, pipeline);
  int spread = 0;
  for (const auto& node : module->main().nodes())
    if (node->is("Attention") && node->attributes.integer("num_ranks") > 1) {
      node->attributes.set("algorithm", algorithm);
      ++spread;
    }
  EXPECT_GT(spread, 0);
  return module;
}

class AttentionOfModels : public ::testing::TestWithParam<Asked> {};

TEST_P(AttentionOfModels, GivesTheRecordedOutputs) {
  const auto& [model, mesh, algorithm] = GetParam();
  const std::shared_ptr<Module> module = sharded(model, mesh, algorithm);
  const auto plan = std::make_shared<const Plan>(build_plan(*module));
  for (const Step& step : plan->programs.at(0).steps)
    EXPECT_TRUE(step.op != "Attention" || step.kernel == fmt::format("attention_{}", algorithm)) << step.kernel;
  Team team({plan}, weights_of(module, plan->mesh), {});
  const testing::Cases recorded = testing::Cases::open(std::filesystem::path(TANDEM_MODELS) / (std::string(model) + ".safetensors"));
  ASSERT_FALSE(recorded.cases.empty());
  for (const testing::Case& one : recorded.cases) {
    TeamTensors inputs;
    for (const auto& [name, tensor] : one.inputs) inputs[name] = {tensor};
    const TeamTensors got = team.run(inputs);
    for (const auto& [name, tensor] : one.outputs)
      EXPECT_LE(testing::relative_error(got.at(name).at(0), tensor), recorded.tolerance) << name;
  }
}

constexpr const char* kHeads[] = {"bert_legacy", "gpt2_dynamo", "llama_legacy", "llama_dynamo_f16", "sdpa_causal_legacy", "sdpa_mask_op23"};
constexpr const char* kGroups[] = {"qwen3_dynamo23", "sdpa_gqa_causal_op23"};  // 2 kv heads
constexpr const char *kMeshes[] = {"cp=2", "cp=2,tp=2"}, *kKeys[] = {"all_gather", "ring"};
using ::testing::Combine, ::testing::Values, ::testing::ValuesIn;

INSTANTIATE_TEST_SUITE_P(KeysMove, AttentionOfModels, Combine(ValuesIn(kHeads), ValuesIn(kMeshes), ValuesIn(kKeys)));
INSTANTIATE_TEST_SUITE_P(KeysOfGroupsMove, AttentionOfModels, Combine(ValuesIn(kGroups), ValuesIn(kMeshes), ValuesIn(kKeys)));
INSTANTIATE_TEST_SUITE_P(HeadsMove, AttentionOfModels, Combine(ValuesIn(kHeads), ValuesIn(kMeshes), Values("all_to_all")));
INSTANTIATE_TEST_SUITE_P(HeadsOfGroupsMove, AttentionOfModels, Combine(ValuesIn(kGroups), Values("cp=2"), Values("all_to_all")));
INSTANTIATE_TEST_SUITE_P(MoreRanks, AttentionOfModels,
                         Combine(Values("bert_legacy", "sdpa_mask_op23"), Values("cp=3", "cp=4"), ValuesIn(kKeys)));

INSTANTIATE_TEST_SUITE_P(LateRowsMove, AttentionOfModels,
                         Combine(Values("gpt2_legacy", "llama_legacy", "qwen3_dynamo23", "sdpa_gqa_causal_op23"),
                                 Values("cp=2", "cp=3", "cp=4", "cp=2,tp=2"), Values("balanced")));

TEST(AttentionKernels, AreTakenByName) {
  const std::shared_ptr<Module> module = sharded("bert_legacy", "cp=2", "auto");
  std::map<std::string, std::string> bytes;
  for (const char* kernel : {"attention_all_gather", "attention_all_to_all", "attention_ring"}) {
    const Plan plan = build_plan(*module, {.kernels = {kernel}});
    for (const Step& step : plan.programs.at(0).steps) EXPECT_TRUE(step.op != "Attention" || step.kernel == kernel) << step.kernel;
    for (const CollectiveUse& use : plan.collectives) bytes[kernel] = use.bytes.to_string();
  }
  EXPECT_EQ(bytes["attention_all_gather"], bytes["attention_ring"]);
  EXPECT_NE(bytes["attention_all_gather"], "");
  EXPECT_THROW(build_plan(*module, {.kernels = {"attention_star"}}), Error);
}

TEST(AttentionHeads, ThatDoNotDivideAreNamed) {
  const std::shared_ptr<Module> module = sharded("bert_legacy", "cp=3", "all_to_all");
  try {
    build_plan(*module);
    ADD_FAILURE() << "no error";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::unsupported);
    EXPECT_NE(std::string(error.what()).find("do not divide by 3 ranks"), std::string::npos) << error.what();
  }
}

}  // namespace
}  // namespace tandem
