// Machine code that engines bring for kernels made from text.
#include "device/code.h"
#include "core/digest.h"

#include <cuda_runtime.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <cstring>
#include <nlohmann/json.hpp>

#include "device/cuda/compile.h"
#include "device/device.h"
#include "gpu/here.h"
#include "support/temporary_folder.h"
#include "support/thrown.h"
#include "tandem/tandem.h"

namespace tandem {
namespace {

using testing::has_gpu;
using testing::model_path;
using testing::thrown;

std::string text_of(int number) { return "extern \"C\" __global__ void put(int* to) { *to = " + std::to_string(number) + "; }"; }

TEST(Code, TargetsAndKeys) {
  EXPECT_EQ(sm_of_target("sm_90a"), 90);
  EXPECT_EQ(sm_of_target("sm_120f"), 120);
  EXPECT_EQ(sm_of_target("cpu"), 0);
  EXPECT_EQ(sm_of_target("sm_"), 0);
  EXPECT_TRUE(runs_on(100, 100) && runs_on(100, 103) && runs_on(80, 89) && runs_on(120, 121));
  EXPECT_FALSE(runs_on(103, 100) || runs_on(90, 100) || runs_on(100, 110) || runs_on(100, 120) || runs_on(120, 100));
  EXPECT_EQ(text_key("abc"), text_key("abc"));
  EXPECT_NE(text_key("abc"), text_key("abd"));
}

// The code of another text, so that only what was offered can have been run.
TEST(Code, WhatIsOfferedIsRun) {
  std::string why;
  if (!has_gpu() || !can_compile_cuda(&why)) GTEST_SKIP() << "no GPU, or no NVRTC: " << why;
  const int sm = open_device("cuda", 0)->sm();
  offer_cuda_code(text_key(text_of(1)), sm, compile_cuda(text_of(2), sm));
  const cudaKernel_t kernel = cuda::compiled_kernel(text_of(1), "put", sm);
  int* at = nullptr;
  ASSERT_EQ(cudaMalloc(reinterpret_cast<void**>(&at), sizeof *at), cudaSuccess);
  void* parameters[] = {&at};
  ASSERT_EQ(cudaLaunchKernel(reinterpret_cast<const void*>(kernel), dim3(1), dim3(1), parameters, 0, nullptr), cudaSuccess);
  int found = 0;
  ASSERT_EQ(cudaMemcpy(&found, at, sizeof found, cudaMemcpyDefault), cudaSuccess);
  cudaFree(at);
  EXPECT_EQ(found, 2);
}

TEST(Code, WhatIsNoCodeIsToldOf) {
  if (!has_gpu()) GTEST_SKIP() << "this machine has no GPU";
  const int sm = open_device("cuda", 0)->sm();
  offer_cuda_code(text_key(text_of(3)), sm, std::make_shared<const std::vector<std::byte>>(1000, std::byte{0x5a}));
  EXPECT_NE(thrown([&] { cuda::compiled_kernel(text_of(3), "put", sm); }).message().find("a compiled kernel"), std::string::npos);
}

// Without a GPU too: machine code is an ELF file, text says what it is for.
TEST(Code, IsMadeForTheGpuThatIsNamed) {
  std::string why;
  if (!can_compile_cuda(&why)) GTEST_SKIP() << why;
  const auto starts_with = [](const CodeBytes& code, std::string_view wanted) {
    return code->size() > wanted.size() && std::memcmp(code->data(), wanted.data(), wanted.size()) == 0;
  };
  for (const int sm : {80, 90, 100, 103, 120, 121})
    EXPECT_TRUE(starts_with(compile_cuda(text_of(1), sm),
                            "\x7f"
                            "ELF"))
        << sm;
  const CodeBytes text = compile_cuda(text_of(1), 990);  // a generation that no compiler knows
  EXPECT_NE(std::string_view(reinterpret_cast<const char*>(text->data()), text->size()).find(".entry put"), std::string_view::npos);
  const Error error = thrown([] { compile_cuda(text_of(1), 20); });
  EXPECT_EQ(error.code(), ErrorCode::unsupported);
  EXPECT_NE(error.message().find("compiles for no GPU as old as sm_20: for sm_"), std::string::npos) << error.what();
}

// Without a GPU too: for the target that is named, and it is in the file.
class CodeOfTarget : public ::testing::TestWithParam<std::pair<const char*, int>> {};
INSTANTIATE_TEST_SUITE_P(Code, CodeOfTarget,
                         ::testing::Values(std::pair("sm_90a", 90), std::pair("sm_100f", 100), std::pair("sm_120", 120)),
                         [](const auto& row) { return std::string(row.param.first); });
TEST_P(CodeOfTarget, IsInTheEngine) {
  BuildOptions options;
  options.device = "cuda";
  options.target = GetParam().first;
  const Engine engine = build(model_path("bert_dynamo"), options);
  const auto described = nlohmann::json::parse(engine.describe());
  std::string why;
  if (!can_compile_cuda(&why)) {
    EXPECT_FALSE(described.contains("code"));
    GTEST_SKIP() << why;
  }
  ASSERT_TRUE(described.contains("code"));
  for (const auto& code : described["code"]) {
    EXPECT_EQ(code["sm"], GetParam().second);
    EXPECT_GT(code["bytes"], 1000);
  }
  const testing::TemporaryFolder folder;
  const std::string path = (folder.path() / "e.tandem").string();
  engine.save(path);
  EXPECT_EQ(nlohmann::json::parse(load_engine(path).describe())["code"], described["code"]);
}

}  // namespace
}  // namespace tandem
