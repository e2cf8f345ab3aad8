// Machine code that engines bring for kernels made from text.
#include "device/code.h"
#include "core/digest.h"

#include <cuda_runtime.h>
#include <gtest/gtest.h>

#include <cstdlib>
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

// Without a GPU too: for the target that is named, and it is in the file.
TEST(Code, EnginesForATargetHoldIt) {
  BuildOptions options;
  options.device = "cuda";
  options.target = "sm_90a";
  const Engine engine = build(model_path("bert_dynamo"), options);
  const auto described = nlohmann::json::parse(engine.describe());
  std::string why;
  if (!can_compile_cuda(&why)) {
    EXPECT_FALSE(described.contains("code"));
    GTEST_SKIP() << why;
  }
  ASSERT_TRUE(described.contains("code"));
  for (const auto& code : described["code"]) {
    EXPECT_EQ(code["sm"], 90);
    EXPECT_GT(code["bytes"], 1000);
  }
  const testing::TemporaryFolder folder;
  const std::string path = (folder.path() / "e.tandem").string();
  engine.save(path);
  EXPECT_EQ(nlohmann::json::parse(load_engine(path).describe())["code"], described["code"]);
}

}  // namespace
}  // namespace tandem
