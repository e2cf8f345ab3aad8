// Who is named while ranks wait for their GPUs; what GPUs would write is written here.
#include "comm/gpu_wait.h"

#include <gtest/gtest.h>
#include <signal.h>

#include <thread>

#include "comm/gpu_group.h"
#include "comm/rank_processes.h"
#include "comm/ranks.h"
#include "comm/run_count.h"
#include "comm/shm/shm_group.h"
#include "core/check.h"
#include "device/device.h"

namespace tandem {
namespace {

using namespace std::chrono_literals;

void begin(Group& group, std::uint64_t collectives) { dynamic_cast<shm::ShmGroup&>(group).gpu_sequence() = collectives; }

// What ends a wait for a GPU that never ends.
Error wait_for_ever(Group& group, std::chrono::nanoseconds limit) {
  GpuWait wait(group, limit, "the work of its GPU");
  try {
    for (;;) {
      wait.look();
      std::this_thread::sleep_for(1ms);
    }
  } catch (const Error& error) {
    return error;
  }
}

TEST(GpuWait, NamesTheRankThatHasBegunTheFewestOnAllRanks) {
  run_ranks(3, [](Group& group) {
    begin(group, group.rank() == 1 ? 4 : 5);
    group.exchange({}, {});
    const Error error = wait_for_ever(group, 200ms);
    EXPECT_EQ(error.code(), ErrorCode::timeout) << error.what();
    EXPECT_EQ(error.rank(), 1) << error.what();
  });
}

TEST(GpuWait, SaysThatNobodyIsBehind) {
  run_ranks(2, [](Group& group) {
    begin(group, 5);
    group.exchange({}, {});
    const Error error = wait_for_ever(group, 100ms);
    EXPECT_EQ(error.code(), ErrorCode::timeout);
    EXPECT_NE(error.message().find("no other rank is behind"), std::string::npos) << error.what();
  });
}

// As NCCL's: of a run some collectives are counted.
class CountsSome final : public GpuGroup {
 public:
  explicit CountsSome(Group& control) : GpuGroup(control) {}
  std::string_view backend() const override { return "some"; }
  std::unique_ptr<Group> split(const std::vector<std::vector<int>>&, std::optional<Deadline>) override { return nullptr; }
  std::optional<std::string> refusal(const CollectiveCall&) const override { return std::nullopt; }
  bool counts_each() const override { return false; }

 protected:
  void enqueue(const CollectiveCall&) override {}
};

TEST(GpuWait, NamesNobodyWhereNotEachIsCountedAndNobodyIsBehind) {
  run_ranks(2, [](Group& group) {
    begin(group, 5);
    group.exchange({}, {});
    CountsSome some(group);
    const Error error = wait_for_ever(some, 100ms);
    EXPECT_EQ(error.code(), ErrorCode::timeout);
    EXPECT_EQ(error.rank(), -1) << error.what();
    EXPECT_NE(error.message().find("which rank is late cannot be told"), std::string::npos) << error.what();
  });
}

TEST(GpuWait, NamesTheRankThatHasCountedTheFewest) {
  run_ranks(3, [](Group& group) {
    begin(group, group.rank() == 2 ? 4 : 5);
    group.exchange({}, {});
    CountsSome some(group);
    const Error error = wait_for_ever(some, group.rank() == 2 ? 60s : 100ms);  // it would say of itself that nobody else is behind
    EXPECT_EQ(error.rank(), 2) << error.what();
    EXPECT_NE(error.message().find("it has counted 5 collectives"), std::string::npos)  // 4 and the exchange
        << error.what();
  });
}

TEST(RunCount, EachOutsideOfARunTheFirstOfEachAndThenEveryHalfMillisecond) {
  const auto counted = [](int calls, std::size_t bytes) {
    int count = 0;
    for (int i = 0; i < calls; ++i) count += RunCount::counts(bytes);
    return count;
  };
  EXPECT_EQ(counted(100, 8), 100);
  for (int run = 0; run < 3; ++run) {
    const RunCount scope;
    EXPECT_TRUE(RunCount::counts(8)) << "the first of run " << run;
    EXPECT_EQ(counted(60, 8), 0);  // some 430 us with the first
    EXPECT_EQ(counted(20, 8), 1);  // 500 are passed
    EXPECT_FALSE(RunCount::counts(std::size_t{1} << 27)) << "of 540 us, soon after that";
    EXPECT_EQ(counted(10, std::size_t{1} << 27), 10);
    EXPECT_EQ(counted(10, std::size_t{1} << 26), 5) << "of 275 us each";
    std::thread([&] { EXPECT_EQ(counted(5, 8), 5) << "of another thread"; }).join();
    {
      const RunCount inner;
      EXPECT_EQ(counted(3, 8), 1);
    }
    EXPECT_EQ(counted(3, 8), 1) << "goes on: two of 275 us were since the last";
  }
  EXPECT_EQ(counted(10, 8), 10);
}

TEST(GpuWait, AnotherRanksErrorEndsIt) {
  run_ranks(2, [](Group& group) {
    if (group.rank() == 1) return group.abort("its disk is full");
    const Error error = wait_for_ever(group, 60s);
    EXPECT_EQ(error.code(), ErrorCode::aborted);
    EXPECT_EQ(error.rank(), 1);
    EXPECT_NE(error.message().find("its disk is full"), std::string::npos) << error.what();
  });
}

TEST(GpuWait, NamesARankWhoseProcessHasEnded) {
  RankProcesses ranks(2, [](Group& group) {
    group.exchange({}, {});
    if (group.rank() == 1) raise(SIGKILL);
    throw wait_for_ever(group, 60s);
  });
  const auto outcomes = ranks.wait();
  ASSERT_TRUE(outcomes[0].finished);
  EXPECT_EQ(outcomes[0].code, ErrorCode::rank_failed) << outcomes[0].text;
  EXPECT_EQ(outcomes[0].rank, 1);
}

TEST(GpuGroup, RanksOfCpusHaveNone) {
  run_ranks(2, [](Group& group) {
    std::string why;
    EXPECT_EQ(make_gpu_group(group, *cpu_device(), {}, &why), nullptr);
    EXPECT_EQ(why, "the ranks run on CPUs");
  });
}

TEST(GpuGroup, RanksMustAskForTheSame) {
  run_ranks(2, [](Group& group) {
    try {
      make_gpu_group(group, *cpu_device(), {.backend = group.rank() == 0 ? "nccl" : "peer"}, nullptr);
      ADD_FAILURE();
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::mismatch);
      EXPECT_NE(error.message().find("'nccl' and 'peer'"), std::string::npos) << error.what();
    }
  });
}

}  // namespace
}  // namespace tandem
