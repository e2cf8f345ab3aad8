// What the end of a process waits for: work that NCCL has not done yet. Each test is of processes that end.
#include "comm/nccl/aside.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <atomic>
#include <cstdlib>

#include "tandem/deadline.h"

namespace tandem::nccl {
namespace {

using namespace std::chrono_literals;

std::atomic<int> done{0};

// As CUDA is taken apart: what is registered first comes last.
template <int kWanted>
void take_apart() {
  _exit(done == kWanted ? 0 : 1);
}

void begin_slow(std::chrono::nanoseconds takes) {
  Aside::begin(
      [takes] {
        std::this_thread::sleep_for(takes);
        ++done;
      },
      kEndOfSlow);
}

TEST(Aside, TheEndOfAProcessWaitsForWorkThatIsSlow) {
  const auto life = [] {
    std::atexit(take_apart<2>);
    begin_slow(4s);
    begin_slow(100ms);
    std::exit(2);
  };
  EXPECT_EXIT(life(), ::testing::ExitedWithCode(0), "");
}

// A static of the program's that was there before any other work began.
TEST(Aside, WorkThatBeginsInTheEndIsWaitedForToo) {
  const auto life = [] {
    std::atexit(take_apart<3>);
    std::atexit([] { begin_slow(300ms); });
    std::atexit([] { begin_slow(300ms); });
    begin_slow(0ms);
    std::exit(2);
  };
  EXPECT_EXIT(life(), ::testing::ExitedWithCode(0), "");
}

TEST(Aside, WorkThatIsStuckIsLeftBehind) {
  const std::int64_t start = monotonic_ns();
  const auto life = [] {
    std::atexit(take_apart<0>);
    for (int i = 0; i < 2; ++i) Aside::begin([] { std::this_thread::sleep_for(60s); }, 500ms);
    std::exit(2);
  };
  EXPECT_EXIT(life(), ::testing::ExitedWithCode(0), "");
  EXPECT_LT(monotonic_ns() - start, 5'000'000'000);
}

}  // namespace
}  // namespace tandem::nccl
