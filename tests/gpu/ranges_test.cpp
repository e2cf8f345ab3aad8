// Steps as Nsight and its like see them: NVTX's ranges, by a tool of the test's own. Needs a GPU: without one every test is skipped.
#include <cstdint>
#include <mutex>

#include "gpu/trouble.h"

#if __has_include(<nvtx3/nvToolsExt.h>)

namespace {

// Ranges that were begun, with the number of those around each; and how many are open.
struct Seen {
  std::mutex mutex;
  std::vector<std::string> names;
  int open = 0;
} seen;

int push(const char* name) {
  const std::lock_guard lock(seen.mutex);
  seen.names.emplace_back(name);
  return seen.open++;
}
int pop() {
  const std::lock_guard lock(seen.mutex);
  return --seen.open;
}

// What NVTX's headers call "callbacks of the core module", of which a tool replaces those that it wants.
using Function = void (*)();
struct Callbacks {
  std::size_t size;
  int (*functions)(int module, Function*** table, unsigned* count);
};
constexpr std::uint32_t kCallbacks = 1;
constexpr int kCore = 1;
constexpr unsigned kPush = 9, kPop = 11;

int attach(const void* (*tables)(std::uint32_t)) {
  const auto* callbacks = static_cast<const Callbacks*>(tables(kCallbacks));
  Function** table = nullptr;
  unsigned count = 0;
  if (!callbacks || !callbacks->functions(kCore, &table, &count) || count <= kPop) return 0;
  *table[kPush] = reinterpret_cast<Function>(push);
  *table[kPop] = reinterpret_cast<Function>(pop);
  return 1;
}

}  // namespace

// The name by which NVTX finds a tool that is linked in; NVTX_INJECTION64_PATH in the environment goes before it.
extern "C" int (*InitializeInjectionNvtx2_fnptr)(const void* (*)(std::uint32_t));
int (*InitializeInjectionNvtx2_fnptr)(const void* (*)(std::uint32_t)) = attach;

namespace tandem {
namespace {

using namespace testing;

class RangesOnGpu : public GpuTrouble {
 protected:
  void SetUp() override {
    GpuTrouble::SetUp();
    if (std::getenv("NVTX_INJECTION64_PATH")) GTEST_SKIP() << "another tool looks on";
    take();
  }
  // Since the last time.
  static std::vector<std::string> take() {
    const std::lock_guard lock(seen.mutex);
    EXPECT_EQ(seen.open, 0);
    return std::exchange(seen.names, {});
  }
};

TEST_F(RangesOnGpu, AProfilerNamesEachStep) {
  Mlp mlp;
  mlp.run(mlp.context);
  EXPECT_EQ(take(), std::vector<std::string>());
  std::vector<std::string> steps;
  mlp.context.set_profiler([&](const StepTime& step) { steps.push_back(step.op + " \"" + step.node + "\""); });
  mlp.run(mlp.context);
  EXPECT_GE(steps.size(), 2u);
  EXPECT_EQ(take(), steps);
  mlp.context.set_profiler({});
  mlp.run(mlp.context);
  EXPECT_EQ(take(), std::vector<std::string>());
}

TEST_F(RangesOnGpu, TheEnvironmentNamesThemWithoutOne) {
  setenv("TANDEM_NVTX", "1", 1);
  Mlp mlp;
  unsetenv("TANDEM_NVTX");
  mlp.run(mlp.context);  // started one by one
  const std::vector<std::string> steps = take();
  EXPECT_GE(steps.size(), 2u);
  mlp.run(mlp.context);  // recorded
  EXPECT_EQ(take(), steps);
  mlp.run(mlp.context);  // replayed
  EXPECT_EQ(take(), std::vector<std::string>());
}

}  // namespace
}  // namespace tandem
#endif
