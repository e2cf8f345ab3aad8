// What is said where the NVIDIA driver is of no use. Needs no GPU.
#include <dlfcn.h>
#include <gtest/gtest.h>

#include <cstdio>
#include <cstdlib>
#include <string>

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
                                 std::pair(100, "build it with -DTANDEM_CUDA_ARCHITECTURES=100-real")}) {
    const std::string said = cuda::kernels_problem(sm);
    EXPECT_TRUE(said.starts_with("the GPU is sm_" + std::to_string(sm) + ", this program was built for ")) << said;
    EXPECT_TRUE(said.ends_with(rest)) << said;
  }
}

}  // namespace
}  // namespace tandem
