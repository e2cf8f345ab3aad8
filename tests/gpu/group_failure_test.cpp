// Contexts of rank processes on a GPU each: what they give, and who is named when one is killed, stopped, late or different. Needs two
// GPUs, or four: with fewer every test is skipped and says so.
#include <cuda_runtime.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <iostream>
#include <map>
#include <new>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "comm/rank_processes.h"
#include "core/check.h"
#include "device/cuda/library.h"
#include "gpu/context_rank.h"
#include "gpu/gpu_ranks.h"
#include "tandem/nccl.h"

namespace tandem::test {
namespace {

using namespace std::chrono_literals;

constexpr int kMostRanks = 4;
constexpr double kMostSeconds = 4;  // from the moment to the error on each of the others

// What the ranks tell the test of the moment that matters, by the clock that all processes share.
struct Told {
  std::atomic<std::int64_t> acted_at{0}, out_at[kMostRanks] = {};
  std::atomic<int> out{0};  // ranks other than the first one and rank 1
};

// What rank 1 does to the others.
struct Trouble {
  std::function<void(ContextRank&)> act;
  bool stops = false;       // it has to be ended for good, as a supervisor would
  std::string notice = {};  // one that contexts have
};

// Rank 1 does so after twenty replays, the others go on until they hear of it. A life without trouble comes first: what libraries load then
// stays on the GPU.
std::vector<RankOutcome> outcomes_when(const Trouble& trouble, int world, Told& told) {
  RankProcesses ranks(world, [&](Group& group) {
    cudaSetDevice(group.rank());
    const pid_t mine = getpid();
    pid_t other = 0;
    std::memcpy(&other, group.exchange(std::as_bytes(std::span(&mine, 1))).at(1).data(), sizeof other);
    {
      ContextRank rank(group);
      for (int call = 0; call < 3; ++call) rank.run();
      check(trouble.notice.empty() || rank.has_notice(trouble.notice), trouble.notice);
      group.exchange({});
    }
    group.exchange({});
    std::this_thread::sleep_for(1s);  // what NCCL still takes apart
    const std::size_t free = free_bytes();
    group.exchange({});
    bool acts = false;
    try {
      ContextRank rank(group, 8, 1);
      for (int call = 0; call < 2000; ++call) {
        acts = call == 20 && group.rank() == 1;
        if (acts) told.acted_at = monotonic_ns(), trouble.act(rank);
        acts = false;
        rank.run();
      }
    } catch (const Error& error) {
      if (acts) throw;  // the others have yet to hear of it
      told.out_at[group.rank()] = monotonic_ns();
      if (group.rank() > 1) ++told.out;
      if (trouble.stops && group.rank() == 0) {
        for (const Deadline patience = Deadline::after(5s); told.out < world - 2 && !patience.expired();) std::this_thread::sleep_for(1ms);
        kill(other, SIGKILL);
      }
      try {
        check_gpu_is_well(free);
      } catch (const Error& worse) {
        fail(ErrorCode::internal, "{}; it came after: {}", worse.message(), error.what());
      }
      throw;
    }
  });
  return ranks.wait(25s * world / 2);
}

// The same, with how soon the others were out and what is left on the GPUs once all processes have ended.
std::vector<RankOutcome> watched(const Trouble& trouble, int world) {
  void* const shared = mmap(nullptr, sizeof(Told), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  auto* const told = new (shared) Told;
  const std::vector<std::size_t> before = used_bytes();
  std::vector<RankOutcome> outcomes = outcomes_when(trouble, world, *told);
  EXPECT_GT(told->acted_at, 0);
  for (int r = 0; r < world; ++r) {
    if (r == 1) continue;
    const double seconds = static_cast<double>(told->out_at[r] - told->acted_at) * 1e-9;
    EXPECT_GT(seconds, 0) << "rank " << r;
    EXPECT_LE(seconds, kMostSeconds) << "from the moment to the error on rank " << r;
    std::cout << "rank " << r << " was out after " << seconds << " s: " << outcomes[static_cast<std::size_t>(r)].text << "\n";
  }
  std::vector<std::size_t> after = used_bytes();
  const auto left = [&](int gpu) {
    const auto at = static_cast<std::size_t>(gpu);
    return (static_cast<double>(after.at(at)) - static_cast<double>(before.at(at))) / (1 << 20);
  };
  const auto any_left = [&] {
    double all = 0;
    for (int gpu = 0; gpu < world; ++gpu) all += left(gpu);
    return all > 0;
  };
  for (const Deadline patience = Deadline::after(5s); any_left() && !patience.expired(); after = used_bytes())
    std::this_thread::sleep_for(200ms);
  for (int gpu = 0; gpu < world; ++gpu) EXPECT_LT(left(gpu), 1) << "MiB that the ranks have left on GPU " << gpu;
  munmap(shared, sizeof(Told));
  return outcomes;
}

// That all but rank 1 have ended with an error about it.
void expect_named(const std::vector<RankOutcome>& outcomes, std::optional<ErrorCode> code) {
  for (std::size_t r = 0; r < outcomes.size(); ++r) {
    if (r == 1) continue;
    ASSERT_TRUE(outcomes[r].finished) << "rank " << r << " waits for ever";
    EXPECT_FALSE(outcomes[r].ok) << "rank " << r;
    EXPECT_EQ(outcomes[r].code, code.value_or(outcomes[r].code)) << outcomes[r].text;
    EXPECT_EQ(outcomes[r].rank, 1) << outcomes[r].text;
  }
}

// By what carries collectives between the GPUs.
class GpuContexts : public ::testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    setenv("TANDEM_GPU_GROUP", GetParam(), 1);
    if (const int count = gpu_count(); count < 2) GTEST_SKIP() << "2 GPUs are needed, this machine has " << count;
  }
  void TearDown() override { unsetenv("TANDEM_GPU_GROUP"); }
};

INSTANTIATE_TEST_SUITE_P(By, GpuContexts, ::testing::Values("nccl", "peer", "host"),
                         [](const auto& info) { return std::string(info.param); });

class LentCommunicators : public ::testing::Test {
 protected:
  void SetUp() override {
    if (const int count = gpu_count(); count < 2) GTEST_SKIP() << "2 GPUs are needed, this machine has " << count;
  }
};

TEST_P(GpuContexts, GiveWhatOneRankGives) {
  run_rank_processes(2, [](Group& group) {
    for (const std::int64_t rows : {1, 8, 33}) {
      ContextRank rank(group, rows);
      check_calls(rank, rows);
    }
  });
}

TEST_F(LentCommunicators, OneOfTheCallersServesAgainAndIsLeftAlone) {
  run_rank_processes(2, [](Group& group) {
    cudaSetDevice(group.rank());
    const ncclComm_t comm = communicator(group, 2);
    for (int round = 0; round < 2; ++round) {
      ContextRank rank(std::shared_ptr<Group>(group_from_nccl(comm)));
      check_calls(rank, 8);
      rank.context->set_communicator(nullptr);
      rank.context->set_communicator(group_from_nccl(comm));
      check_calls(rank, 8);
    }
    nccl::check(nccl::api().ncclCommDestroy(comm), "its own end");
  });
}

// Ranks that are threads, with communicators that one call made; one thread binds them, the last rank first.
TEST_F(LentCommunicators, ThoseOfOneProcessAreBoundByOneThread) {
  RankProcesses process(1, [](int) {
    std::string why;
    const cuda::Library* library = cuda::find_library(cuda::Which::nccl, &why);
    check(library != nullptr, why);
    ncclComm_t comms[2] = {};
    check(library->function<int(ncclComm_t*, int, const int*)>("ncclCommInitAll")(comms, 2, nullptr) == 0, "communicators");
    const Engine engine = engine_of("cuda", "tp=2", 8);
    const Arrays inputs = engine.random_inputs(1);
    const Array wanted = Model(engine_of("cpu", "", 8)).run(inputs).begin()->second.at(0);
    std::optional<Context> contexts[2];
    for (const int rank : {1, 0})
      for (int again = 0; again < 2; ++again) {
        if (!contexts[rank]) contexts[rank].emplace(engine, ContextOptions{.rank = rank, .threads = 1});
        contexts[rank]->set_communicator(group_from_nccl(comms[rank]));
      }
    std::atomic<int> right{0};
    {
      std::vector<std::jthread> threads;
      for (Context& context : {std::ref(*contexts[0]), std::ref(*contexts[1])})
        threads.emplace_back([&context, &inputs, &wanted, &right] {
          context.set_input_shape(0, inputs.begin()->second.shape);
          std::vector<float> out(wanted.size_bytes() / sizeof(float), -1.0f);
          const void* const in[] = {inputs.begin()->second.data.get()};
          void* const to[] = {out.data()};
          for (int call = 0; call < 4; ++call) context.run(in, to);
          const auto* values = reinterpret_cast<const float*>(wanted.data.get());
          right += std::equal(out.begin(), out.end(), values, [](float a, float b) { return std::abs(a - b) < 1e-4f; });
        });
    }
    check(right == 2, "both give what one rank gives");
    for (auto& context : contexts) context->set_communicator(nullptr);
    for (const ncclComm_t comm : comms) nccl::check(nccl::api().ncclCommDestroy(comm), "its own end");
  });
  const auto outcomes = process.wait(50s);
  ASSERT_TRUE(outcomes[0].finished) << "it waits for ever";
  EXPECT_TRUE(outcomes[0].ok) << outcomes[0].text;
}

// With activations that are registered, in memory of the context's and of the caller's.
TEST_F(LentCommunicators, RegisteredActivationsGiveTheSameBits) {
  run_rank_processes(2, [](Group& group) {
    setenv("TANDEM_GPU_GROUP", "nccl", 1);
    std::map<std::int64_t, std::vector<float>> wanted;
    for (const char* how : {"none", "buffers"}) {
      setenv("TANDEM_NCCL_REGISTER", how, 1);
      ContextRank rank(group, 0);
      const auto run_some = [&] {
        for (const std::int64_t rows : {8, 64, 8, 33, 64, 8, 33})
          for (int call = 0; call < 2; ++call) {
            rank.run_rows(rows);
            const auto [known, first] = wanted.emplace(rows, rank.out);
            check(known->second == rank.out, fmt::format("{} rows, {}", rows, how));
          }
      };
      run_some();
      const DeviceMemory lent(open_device("cuda", group.rank()), std::size_t{8} << 20);
      for (int round = 0; round < 2; ++round) {
        rank.context->set_device_memory(lent.data(), lent.bytes());
        run_some();
        rank.context->set_device_memory(nullptr, 0);
        run_some();
      }
    }
  });
}

TEST_F(LentCommunicators, OneOfAnotherSizeOrGpuIsRefused) {
  run_rank_processes(2, [](Group& group) {
    cudaSetDevice(1 - group.rank());  // the other one
    const ncclComm_t both = communicator(group, 2), one = communicator(group, 1);
    const Engine engine = engine_of("cuda", "tp=2", 8);
    Context context(engine, {.rank = group.rank()});
    if (one) check_refused(ErrorCode::mismatch, "the group has 1", [&] { context.set_communicator(group_from_nccl(one)); });
    check_refused(ErrorCode::invalid_argument, "there is no communicator", [&] { group_from_nccl(nullptr); });
    context.set_communicator(group_from_nccl(both));
    context.set_input_shape(0, {8, 32});
    check_refused(ErrorCode::mismatch, fmt::format("the communicator is on GPU {}", 1 - group.rank()), [&] { context.prepare(); });
    context.set_communicator(nullptr);
    group.exchange({});
    for (const ncclComm_t comm : {one, both})
      if (comm) nccl::check(nccl::api().ncclCommDestroy(comm), "its own end");
  });
}

// How the ranks communicate, with memory registered or not, and how many they are.
struct Way {
  const char *group, *registered;
  int ranks = 2;
};

class GpuFailures : public ::testing::TestWithParam<Way> {
 protected:
  void SetUp() override {
    setenv("TANDEM_GPU_GROUP", GetParam().group, 1);
    setenv("TANDEM_NCCL_REGISTER", GetParam().registered, 1);
    if (const int count = gpu_count(); count < ranks()) GTEST_SKIP() << ranks() << " GPUs are needed, this machine has " << count;
  }
  void TearDown() override {
    unsetenv("TANDEM_GPU_GROUP");
    unsetenv("TANDEM_NCCL_REGISTER");
  }
  static int ranks() { return GetParam().ranks; }
  // What contexts say where memory is registered.
  static std::string notice() { return std::string_view(GetParam().registered) == "none" ? "" : "activations are registered with NCCL"; }
};

INSTANTIATE_TEST_SUITE_P(By, GpuFailures,
                         ::testing::Values(Way{"nccl", "none"}, Way{"nccl", "buffers"}, Way{"peer", "none"}, Way{"host", "none"},
                                           Way{"nccl", "none", 4}, Way{"peer", "none", 4}, Way{"host", "none", 4}),
                         [](const auto& info) {
                           const std::string how = info.param.registered;
                           const std::string ranks = info.param.ranks == 2 ? "" : "_4";
                           return info.param.group + (how == "none" ? "" : "_" + how) + ranks;
                         });

TEST_P(GpuFailures, AKilledRankIsNamed) {
  expect_named(watched({.act = [](ContextRank&) { raise(SIGKILL); }, .notice = notice()}, ranks()), ErrorCode::rank_failed);
}

TEST_P(GpuFailures, AStoppedRankIsNamed) {
  expect_named(watched({.act = [](ContextRank&) { raise(SIGSTOP); }, .stops = true, .notice = notice()}, ranks()), ErrorCode::timeout);
}

TEST_P(GpuFailures, ARankThatDoesNotCallIsNamedAndHearsOfIt) {
  const auto outcomes = watched({.act = [](ContextRank&) { std::this_thread::sleep_for(5s); }, .notice = notice()}, ranks());
  expect_named(outcomes, ErrorCode::timeout);
  ASSERT_TRUE(outcomes[1].finished) << "rank 1 waits for ever";
  EXPECT_EQ(outcomes[1].code, ErrorCode::timeout) << outcomes[1].text;
  EXPECT_EQ(outcomes[1].rank, 1) << outcomes[1].text;
}

// The others are behind it then.
TEST_P(GpuFailures, ARankThatCallsTwiceHearsWhomItWaitsFor) {
  RankProcesses processes(ranks(), [&](Group& group) {
    ContextRank rank(group, 8, 1);
    for (int call = 0; call < 5; ++call) rank.run();
    if (group.rank() == 0) std::this_thread::sleep_for(3s);
    rank.run();
  });
  for (const RankOutcome& outcome : processes.wait(25s * ranks() / 2)) {
    ASSERT_TRUE(outcome.finished) << "a rank waits for ever";
    EXPECT_EQ(outcome.code, ErrorCode::timeout) << outcome.text;
    EXPECT_EQ(outcome.rank, 0) << outcome.text;
  }
}

TEST_P(GpuFailures, ARankThatThrowsEndsTheOthers) {
  const auto outcomes = watched({.act = [](ContextRank&) { fail(ErrorCode::io, "the disk is full"); }, .notice = notice()}, ranks());
  expect_named(outcomes, std::nullopt);
  for (const RankOutcome& outcome : outcomes) EXPECT_NE(outcome.text.find("the disk is full"), std::string::npos) << outcome.text;
}

TEST_P(GpuContexts, PlansThatDifferAreRefusedBeforeAnythingRuns) {
  RankProcesses ranks(2, [](Group& group) { ContextRank(group, group.rank() == 0 ? 8 : 16); });
  for (const RankOutcome& outcome : ranks.wait(50s)) {
    ASSERT_TRUE(outcome.finished);
    EXPECT_EQ(outcome.code, ErrorCode::mismatch) << outcome.text;
  }
}

TEST_P(GpuContexts, ShapesThatDifferAreRefusedBeforeAnythingRuns) {
  RankProcesses ranks(2, [](Group& group) {
    ContextRank rank(group, 0);
    rank.run_rows(8);
    rank.run_rows(group.rank() == 0 ? 16 : 24);
  });
  for (const RankOutcome& outcome : ranks.wait(50s)) {
    ASSERT_TRUE(outcome.finished);
    EXPECT_EQ(outcome.code, ErrorCode::mismatch) << outcome.text;
    EXPECT_NE(outcome.text.find("ranks 0 and 1 disagree in collective 0 of these shapes"), std::string::npos) << outcome.text;
  }
}

// Both shapes have run before and are replayed.
TEST_P(GpuContexts, CallsInAnotherOrderAreNamedOnAllRanks) {
  RankProcesses ranks(2, [](Group& group) {
    ContextRank rank(group, 0);
    for (int call = 0; call < 6; ++call) rank.run_rows(call % 2 ? 8 : 16);
    rank.run_rows(group.rank() == 0 ? 8 : 16);
    rank.run_rows(group.rank() == 0 ? 16 : 8);
  });
  for (const RankOutcome& outcome : ranks.wait(50s)) {
    ASSERT_TRUE(outcome.finished);
    EXPECT_EQ(outcome.code, ErrorCode::mismatch) << outcome.text;
    EXPECT_NE(outcome.text.find("rank 0 runs x [8,32], rank 1 runs x [16,32]"), std::string::npos) << outcome.text;
  }
}

}  // namespace
}  // namespace tandem::test
