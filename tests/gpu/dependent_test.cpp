// Kernels that start before their predecessors end: outputs of the recorded models are the same to the bit, and are the same when they do
// not.
#include <cuda_runtime.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <filesystem>

#include "tandem/tandem.h"

#include "gpu/here.h"

namespace tandem {
namespace {

std::filesystem::path models() {
  const char* folder = std::getenv("TANDEM_TEST_MODELS");
  return folder ? folder : TANDEM_MODELS;
}

// Those of one rank and one file.
std::vector<std::string> names() {
  std::vector<std::string> found;
  std::error_code none;
  for (std::filesystem::directory_iterator it(models(), none), end; !none && it != end; it.increment(none)) {
    const std::string name = it->path().stem().string();
    if (it->path().extension() == ".onnx" && !name.starts_with("collective") && !name.starts_with("sharded")) found.push_back(name);
  }
  std::ranges::sort(found);
  return found;
}

std::size_t early_steps(const Engine& engine) {
  const std::string text = engine.describe(), mark = "\"starts_early\":true";
  std::size_t count = 0;
  for (std::size_t at = text.find(mark); at != std::string::npos; at = text.find(mark, at + 1)) ++count;
  return count;
}

// The bytes of all outputs of several calls: the first is run, the second recorded, the others replayed.
std::vector<std::string> outputs_of(const Engine& engine, bool dependent) {
  Context context(engine, {.dependent_launch = dependent});
  std::vector<std::string> all;
  for (unsigned call = 0; call < 6; ++call) {
    const Arrays arrays = engine.random_inputs(call % 3);
    std::vector<const void*> inputs;
    std::vector<void*> outputs;
    const std::vector<Port> in = engine.inputs(), out = engine.outputs();
    for (std::size_t i = 0; i < in.size(); ++i) {
      context.set_input_shape(i, arrays.at(in[i].name).shape);
      inputs.push_back(arrays.at(in[i].name).data.get());
    }
    const std::size_t first = all.size();
    for (std::size_t i = 0; i < out.size(); ++i)
      all.emplace_back(Array{out[i].dtype, context.output_shape(i), nullptr}.size_bytes(), '\x5a');
    for (std::size_t i = 0; i < out.size(); ++i) outputs.push_back(all[first + i].data());
    context.run(inputs, outputs);
  }
  return all;
}

class Dependent : public ::testing::TestWithParam<std::string> {
 protected:
  void SetUp() override {
    int major = 0;
    if (!testing::has_gpu()) GTEST_SKIP() << "this machine has no GPU";
    if (cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, 0) != cudaSuccess || major < 9)
      GTEST_SKIP() << "this GPU starts no kernel early";
  }
};

TEST_P(Dependent, SameBits) {
  for (const bool own_products : {false, true}) {
    BuildOptions options;
    options.device = "cuda";
    if (own_products) options.kernels = {"cuda_matmul"};  // more of the steps are kernels of ours
    const Engine engine = build((models() / (GetParam() + ".onnx")).string(), options);
    const std::vector<std::string> with = outputs_of(engine, true), without = outputs_of(engine, false);
    ASSERT_EQ(with.size(), without.size());
    for (std::size_t i = 0; i < with.size(); ++i)
      EXPECT_EQ(with[i] == without[i], true) << "output " << i << (own_products ? ", our products" : "");
  }
}

// Also on machines without a GPU.
TEST(DependentPlans, StepsStartEarlyUnlessTheBuildForbidsIt) {
  BuildOptions options;
  options.device = "cuda";
  options.kernels = {"cuda_matmul"};
  const std::string model = (models() / "bert_dynamo.onnx").string();
  EXPECT_GT(early_steps(build(model, options)), 0u);
  options.dependent_launch = false;
  EXPECT_EQ(early_steps(build(model, options)), 0u);
}

INSTANTIATE_TEST_SUITE_P(Models, Dependent, ::testing::ValuesIn(names()), [](const auto& info) { return info.param; });
GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(Dependent);

}  // namespace
}  // namespace tandem
