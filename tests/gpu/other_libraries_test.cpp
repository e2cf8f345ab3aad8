// Engines whose steps a library computes that is another one, or none, where they are loaded.
#include <filesystem>

#include "api/run/engine_data.h"
#include "gpu/chain.h"
#include "gpu/trouble.h"
#include "ops/libraries_cpu.h"

namespace tandem {
namespace {

namespace fs = std::filesystem;
using namespace testing;

// Of 128 rows of 4 heads, which our own kernels do not go before cuDNN's for.
Engine attention() {
  Network network;
  const auto operand = [&](const char* name) { return network.input(name, DType::bf16, {1, 4, 128, 64}); };
  network.output("y", network.attention(operand("q"), operand("k"), operand("v")));
  return build(network, {.device = "cuda", .kernels = {"cudnn_attention"}});
}

Engine convolution() {
  Network network;
  const Network::Value x = network.input("x", DType::bf16, {1, 32, 16, 16});
  network.output("y", network.add("Conv", {x, network.weight("w", random_array(DType::bf16, {32, 32, 3, 3}, 1, 0.1f))}));
  return build(network, {.device = "cuda", .kernels = {"cudnn_conv"}});
}

bool takes_cudnn(const Engine& engine) { return engine.describe().find("\"kernel\":\"cudnn_") != std::string::npos; }

// From bf16.
std::vector<float> results(const Engine& engine) {
  const Array y = Model(engine).run(engine.random_inputs(3)).at("y").at(0);
  std::vector<float> values(y.size_bytes() / 2);
  for (std::size_t i = 0; i < values.size(); ++i) {
    std::uint16_t upper = 0;
    std::memcpy(&upper, y.data.get() + 2 * i, 2);
    const std::uint32_t word = static_cast<std::uint32_t>(upper) << 16;
    std::memcpy(&values[i], &word, 4);
  }
  return values;
}

void expect_near(const std::vector<float>& got, const std::vector<float>& wanted) {
  ASSERT_EQ(got.size(), wanted.size());
  for (std::size_t i = 0; i < got.size(); ++i) ASSERT_NEAR(got[i], wanted[i], 2e-2 * (1 + std::abs(wanted[i]))) << i;
}

std::string notices_of(const Engine& engine) {
  std::string notices;
  for (const std::string& text : engine.notices()) notices += text + " ";
  return notices;
}

// Children are processes started anew, which find no cuDNN; they must not look for it before they are told where.
class OtherLibraries : public GpuTrouble {
 protected:
  void SetUp() override {
    GpuTrouble::SetUp();
    if (IsSkipped() || in_child()) return;
    if (!library_versions("cuda").contains("cudnn")) GTEST_SKIP() << "this machine has no cuDNN";
  }
  static bool in_child() { return ::testing::internal::InDeathTestChild(); }
  static std::string file(const std::string& name) { return (fs::path(::testing::TempDir()) / ("tandem_other_" + name)).string(); }

  void expect_chosen_again_without_cudnn(const std::string& name, Engine (*make)()) {
    const std::string path = file(name + ".tandem"), folder = folder_with_broken("libcudnn.so.9");
    if (!in_child()) {
      const Engine engine = make();
      ASSERT_TRUE(takes_cudnn(engine)) << engine.describe();
      engine.save(path);
    }
    const auto life = [&] {
      setenv("TANDEM_CUDA_LIBRARIES", folder.c_str(), 1);
      const Engine here = load_engine(path);
      results(here);
      end_with((takes_cudnn(here) ? "the same kernels: " : "other kernels: ") + notices_of(here));
    };
    EXPECT_EXIT(life(), ::testing::ExitedWithCode(0), "other kernels: .*cudnn .*here none.*chosen again");
    const auto strict = [&] {
      setenv("TANDEM_CUDA_LIBRARIES", folder.c_str(), 1);
      end_with(thrown([&] { load_engine(path, {.strict = true}); }).what());
    };
    EXPECT_EXIT(strict(), ::testing::ExitedWithCode(0), "built with cudnn .*here none");
  }

  // The engine as another version of cuDNN would have made it.
  void expect_another_version_is_told_of(const std::string& name, Engine (*make)()) {
    const Engine engine = make();
    ASSERT_TRUE(takes_cudnn(engine)) << engine.describe();
    Plan plan = engine.data().plan();
    plan.built_with["cudnn"] = "9.0.1";
    auto data = std::make_shared<EngineData>(engine.data());
    data->plans = {std::make_shared<Plan>(plan)};
    const std::string path = file(name + "_version.tandem"), said = "cudnn 9.0.1, here " + library_versions("cuda").at("cudnn");
    Engine(data).save(path);
    const Error refused = thrown([&] { load_engine(path, {.strict = true}); });
    EXPECT_EQ(refused.code(), ErrorCode::mismatch);
    EXPECT_NE(refused.message().find(said), std::string::npos) << refused.what();
    const Engine loaded = load_engine(path);
    EXPECT_NE(notices_of(loaded).find(said + ": the kernels of "), std::string::npos) << notices_of(loaded);
    expect_near(results(loaded), results(engine));
  }
};

TEST_F(OtherLibraries, AttentionIsChosenAgainWithoutCudnn) { expect_chosen_again_without_cudnn("attention", attention); }
TEST_F(OtherLibraries, ConvolutionIsChosenAgainWithoutCudnn) { expect_chosen_again_without_cudnn("convolution", convolution); }
TEST_F(OtherLibraries, AttentionOfAnotherVersion) { expect_another_version_is_told_of("attention", attention); }
TEST_F(OtherLibraries, ConvolutionOfAnotherVersion) { expect_another_version_is_told_of("convolution", convolution); }

}  // namespace
}  // namespace tandem
