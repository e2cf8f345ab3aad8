// Recorded models whose images have their channels last, by the kernels that their engines take: against the recorded outputs, and over
// ranks.
#include <gtest/gtest.h>

#include <algorithm>

#include "api/run/engine_data.h"
#include "tandem/tandem.h"

namespace tandem {
namespace {

std::string path_of(const std::string& file) { return std::string(TANDEM_MODELS) + "/" + file; }

int convolutions(const Engine& engine, const std::string& layout) {
  const std::vector<Step>& steps = engine.data().plan().programs.at(0).steps;
  return static_cast<int>(
      std::ranges::count_if(steps, [&](const Step& step) { return step.op == "Conv" && step.attributes.text("layout") == layout; }));
}

class ChannelsLastModels : public ::testing::TestWithParam<const char*> {};
INSTANTIATE_TEST_SUITE_P(Models, ChannelsLastModels,
                         ::testing::Values("resnet_dynamo", "resnet_legacy", "vit_legacy", "unet_dynamo", "unet_legacy", "dit_legacy"));

TEST_P(ChannelsLastModels, ComputeWhatWasRecorded) {
  const std::string model = GetParam();
  for (const std::string dtype : {"", "f16"})
    for (const std::string mesh : {"", "tp=2", "dp=2"}) {
      if (!dtype.empty() && !mesh.empty()) continue;
      VerifyOptions options;
      options.cases = path_of(model + ".safetensors");
      options.build.channels_last = "all";
      options.build.dtype = dtype;
      options.team.threads = 1;
      if (!mesh.empty()) options.meshes = {mesh};
      int outputs = 0;
      for (const MeshCheck& check : verify(path_of(model + ".onnx"), options)) {
        EXPECT_TRUE(check.passed) << check.mesh << " " << dtype << check.error;
        for (const OutputCheck& output : check.outputs) {
          EXPECT_TRUE(output.passed) << check.mesh << " " << dtype << " " << output.name << " against " << output.reference << ": "
                                     << output.relative;
          ++outputs;
        }
      }
      EXPECT_GT(outputs, 0);
    }
}

TEST_P(ChannelsLastModels, HaveThemWhereAskedFor) {
  for (const std::string asked : {"", "none", "auto", "all"}) {
    BuildOptions options;
    options.dtype = "f16";
    options.channels_last = asked;
    const Engine engine = build(path_of(std::string(GetParam()) + ".onnx"), options);
    const int first = convolutions(engine, "channels_first"), last = convolutions(engine, "channels_last");
    EXPECT_GT(first + last, 0);
    EXPECT_TRUE((!asked.empty() && asked != "none") || last == 0) << last;
    EXPECT_TRUE(asked != "all" || first == 0) << first;
  }
  BuildOptions options;
  options.channels_last = "sometimes";
  EXPECT_THROW(build(path_of(std::string(GetParam()) + ".onnx"), options), Error);
}

}  // namespace
}  // namespace tandem
