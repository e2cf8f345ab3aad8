// What is said where the NVIDIA driver is of no use. Needs no GPU.
#include <dlfcn.h>
#include <gtest/gtest.h>

#include <cstdio>
#include <cstdlib>
#include <string>

#include "device/cuda/architectures.h"
#include "device/cuda/driver.h"
#include "device/device.h"
#include "support/thrown.h"
#include "tandem/error.h"

namespace tandem {
namespace {

// The loader reads its path when a process starts, so a driver is put before the machine's own in a process started anew.
TEST(Driver, ATooOldOneIsNamedWithBothVersions) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  const char* before = std::getenv("LD_LIBRARY_PATH");
  const std::string kept = before ? before : "";
  setenv("LD_LIBRARY_PATH", TANDEM_OLD_DRIVER, 1);
  const auto life = [] {
    std::string said = "a device";
    try {
      open_cuda_device(0);
    } catch (const Error& error) {
      said = error.what();
    }
    std::fprintf(stderr, "%s; %d GPUs\n", said.c_str(), cuda_device_count());
    std::exit(0);
  };
  EXPECT_EXIT(life(), ::testing::ExitedWithCode(0),
              "no CUDA device: the NVIDIA driver is too old: it supports CUDA up to 11\\.4, this program needs 1[2-9]\\.0.*; 0 GPUs");
  if (before) setenv("LD_LIBRARY_PATH", kept.c_str(), 1);
  else unsetenv("LD_LIBRARY_PATH");
}

TEST(Driver, AMissingOneIsSaid) {
  if (dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL)) GTEST_SKIP() << "this machine has a driver";
  const Error error = testing::thrown([] { open_cuda_device(0); });
  EXPECT_EQ(error.code(), ErrorCode::unsupported);
  EXPECT_NE(error.message().find("the NVIDIA driver is missing"), std::string::npos) << error.what();
  EXPECT_EQ(cuda_device_count(), 0);
  EXPECT_EQ(open_device("cpu", 0)->kind(), "cpu");
}

TEST(Driver, AGpuWithoutKernelsIsNamedWithWhatThereIs) {
  for (const auto& [sm, rest] : {std::pair(75, "GPUs before compute capability 8.0 are not supported"),
                                 std::pair(110, "build it with -DTANDEM_CUDA_ARCHITECTURES=110-real")}) {
    const std::string said = cuda::kernels_problem(sm);
    EXPECT_TRUE(said.starts_with("the GPU is sm_" + std::to_string(sm) + ", this program was built for ")) << said;
    EXPECT_TRUE(said.ends_with(rest)) << said;
  }
}

struct Taken {
  const char* built;
  int sm, taken;
};

// By NVIDIA's rules: machine code for x.y runs on x.z from y on, for 9.0a on 9.0 alone, text on all that are newer.
TEST(Driver, AGpuTakesMachineCodeOfItsGenerationElseText) {
  constexpr const char *kOld = "80-real, 90a-real", *kAll = "80-real, 90a-real, 100, 120-real";
  for (const auto& [built, sm, taken] : {Taken{kOld, 75, 0},
                                         {kOld, 80, 80},
                                         {kOld, 86, 80},
                                         {kOld, 89, 80},
                                         {kOld, 90, 90},
                                         {kOld, 100, 0},
                                         {kOld, 120, 0},
                                         {kAll, 89, 80},
                                         {kAll, 90, 90},
                                         {kAll, 100, 100},
                                         {kAll, 103, 100},
                                         {kAll, 110, 100},
                                         {kAll, 120, 120},
                                         {kAll, 121, 120},
                                         {kAll, 130, 100},
                                         {"86-real", 80, 0},
                                         {"86-real", 89, 86},
                                         {"100-real, 103-real", 100, 100},
                                         {"100-real, 103-real", 103, 103},
                                         {"90a", 100, 0},
                                         {"90a-virtual", 90, 90},
                                         {"100f-real", 103, 100},
                                         {"100f-real", 110, 0},
                                         {"100f", 120, 0},
                                         {"100-virtual", 90, 0},
                                         {"100-virtual, 110-virtual", 120, 110},
                                         {"", 90, 0}})
    EXPECT_EQ(cuda::code_for(built, sm), taken) << built << " on sm_" << sm;
}

TEST(Driver, ACompilerThatDoesNotKnowAGpuIsAskedForTheNearest) {
  constexpr int kKnown[] = {75, 80, 86, 90, 100, 120};
  for (const auto& [sm, target] :
       {std::pair(70, ""), std::pair(80, "sm_80"), std::pair(89, "sm_86"), std::pair(90, "sm_90"), std::pair(103, "sm_100"),
        std::pair(110, "compute_100"), std::pair(121, "sm_120"), std::pair(130, "compute_120")})
    EXPECT_EQ(cuda::architecture_for(kKnown, sm), target) << sm;
}

TEST(Driver, TextThatTheDriverDoesNotCompileIsNamedWithTheReason) {
  EXPECT_EQ(cuda::text_problem(130, "a reason"),
            "there is no machine code for the GPU, sm_130, and the driver did not compile the text that there is: a reason");
}

}  // namespace
}  // namespace tandem
