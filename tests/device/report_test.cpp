// What `tandem doctor` tells of a library: where it was found, its version, or how to get it. Needs no GPU.
#include <gtest/gtest.h>

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <string>

#include "device/device.h"

namespace tandem {
namespace {

namespace fs = std::filesystem;

const fs::path kNccl = fs::path(TANDEM_NCCL_STUB_FOLDER) / "libnccl.so.2";

// The variables that say where libraries are, for a process that is started anew: a search is made once, and the loader reads its path at
// the start.
struct Places {
  Places(const std::string& loader, const std::string& environment) {
    set("LD_LIBRARY_PATH", loader, before_[0]);
    set("VIRTUAL_ENV", environment, before_[1]);
    set("TANDEM_CUDA_LIBRARIES", "", before_[2]);
  }
  ~Places() {
    std::string unused;
    set("LD_LIBRARY_PATH", before_[0], unused);
    set("VIRTUAL_ENV", before_[1], unused);
    set("TANDEM_CUDA_LIBRARIES", before_[2], unused);
  }

 private:
  static void set(const char* name, const std::string& value, std::string& before) {
    if (const char* now = std::getenv(name)) before = now;
    setenv(name, value.c_str(), 1);
  }
  std::string before_[3];
};

[[noreturn]] void tell_of_nccl() {
  for (const CudaReport::Library& library : report_cuda().libraries) {
    if (library.name != "NCCL") continue;
    std::fprintf(stderr, "%s\n",
                 library.path.empty() ? ("missing: " + library.how_to_get).c_str()
                                      : ("version " + library.version + " at " + library.path + ".").c_str());
  }
  std::exit(0);
}

class CudaReports : public ::testing::Test {
 protected:
  void SetUp() override { GTEST_FLAG_SET(death_test_style, "threadsafe"); }
};

TEST_F(CudaReports, TellOfALibraryFromAWheel) {
  const fs::path environment = fs::path(::testing::TempDir()) / "tandem_wheel",
                 folder = environment / "lib/python3.11/site-packages/nvidia/nccl/lib";
  fs::create_directories(folder);
  fs::copy_file(kNccl, folder / "libnccl.so.2", fs::copy_options::overwrite_existing);
  const Places places("", environment);
  EXPECT_EXIT(tell_of_nccl(), ::testing::ExitedWithCode(0), "version 2\\.[0-9.]+ at .*tandem_wheel/.*/nvidia/nccl/lib/libnccl\\.so\\.2\\.");
}

TEST_F(CudaReports, TellOfALibraryOfTheSystem) {
  const Places places(kNccl.parent_path(), "");
  EXPECT_EXIT(tell_of_nccl(), ::testing::ExitedWithCode(0), "version 2\\.[0-9.]+ at .*/libnccl\\.so\\.2\\.");
}

TEST_F(CudaReports, TellHowToGetWhatIsMissing) {
  const Places places("", "");
  EXPECT_EXIT(tell_of_nccl(), ::testing::ExitedWithCode(0), "missing: pip install nvidia-nccl|version 2\\..* at (/usr|/opt)/");
}

}  // namespace
}  // namespace tandem
