// Contexts of rank processes on a GPU each: what they give, and who is named when one is killed, stopped, late or different. Needs two
// GPUs: with fewer every test is skipped and says so.
#include <cuda_runtime.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <map>
#include <optional>
#include <thread>

#include "comm/nccl/api.h"
#include "comm/rank_processes.h"
#include "core/check.h"
#include "gpu/gpu_ranks.h"
#include "gpu/here.h"
#include "tandem/nccl.h"
#include "tandem/tandem.h"

namespace tandem::test {
namespace {

using namespace std::chrono_literals;

Engine engine_of(const std::string& device, const std::string& mesh, std::int64_t rows) {
  BuildOptions options;
  options.device = device;
  options.mesh = mesh;
  options.timed = false;
  options.shapes["x"] = rows > 0 ? fmt::format("{}x32", rows) : "1x32:8x32:64x32";
  return build(testing::model_path("mlp_dynamo"), options);
}

// One rank of the MLP over two GPUs, with memory of the host. `rows` 0: the engine takes any number of them.
struct Rank {
  Rank(Group& group, std::int64_t rows = 8, double step_deadline_s = 30)
      : Rank(std::shared_ptr<Group>(&group, [](Group*) {}), rows, step_deadline_s) {}
  explicit Rank(const std::shared_ptr<Group>& group, std::int64_t rows = 8, double step_deadline_s = 30)
      : engine(engine_of("cuda", "tp=2", rows)),
        inputs(engine.random_inputs(1)),
        context(std::in_place, engine, ContextOptions{.rank = group->rank(), .threads = 1, .step_deadline_s = step_deadline_s}) {
    context->set_communicator(group);
    set_shape(inputs.begin()->second.shape);
    context->prepare();
  }
  void set_shape(const Shape& shape) {
    context->set_input_shape(0, shape);
    out.resize(static_cast<std::size_t>(element_count(context->output_shape(0))));
  }
  // With other rows, where the engine takes any number of them.
  void run_rows(std::int64_t rows) {
    set_shape({rows, 32});
    values.assign(static_cast<std::size_t>(rows) * 32, 0.5f);
    const void* const in[] = {values.data()};
    void* const to[] = {out.data()};
    context->run(in, to);
  }
  void run() {
    const void* const in[] = {inputs.begin()->second.data.get()};
    void* const to[] = {out.data()};
    std::fill(out.begin(), out.end(), -1.0f);
    context->run(in, to);
  }

  Engine engine;
  Arrays inputs;
  std::optional<Context> context;
  std::vector<float> out, values;
};

std::size_t free_bytes() {
  std::size_t free = 0, total = 0;
  check(cudaDeviceSynchronize() == cudaSuccess && cudaMemGetInfo(&free, &total) == cudaSuccess, "the GPU tells its memory");
  return free;
}

// The GPU works on, and all that the context had there is given back. What another process has opened is so once that has let go.
void check_gpu_is_well(std::size_t free_before) {
  void* memory = nullptr;
  check(cudaDeviceSynchronize() == cudaSuccess && cudaMalloc(&memory, 1 << 20) == cudaSuccess &&
            cudaMemset(memory, 1, 1 << 20) == cudaSuccess,
        "the GPU works on");
  check(cudaFree(memory) == cudaSuccess && cudaDeviceSynchronize() == cudaSuccess, "the GPU works on");
  const Deadline deadline = Deadline::after(10s);
  const auto is_back = [&] { return free_bytes() + (std::size_t{64} << 20) > free_before; };
  while (!is_back() && !deadline.expired()) std::this_thread::sleep_for(20ms);
  check(is_back(), fmt::format("{} MiB were free before, {} are after", free_before >> 20, free_bytes() >> 20));
}

// Rank 1 does `act` after twenty replays, rank 0 goes on until it hears of it, and ends rank 1 for good where that is stopped, as a
// supervisor would. A life without trouble comes first: what libraries load then stays on the GPU.
std::vector<RankOutcome> outcomes_when(const std::function<void(Rank&)>& act, bool stops = false) {
  RankProcesses ranks(2, [&](Group& group) {
    cudaSetDevice(group.rank());
    const pid_t mine = getpid();
    pid_t other = 0;
    std::memcpy(&other, group.exchange(std::as_bytes(std::span(&mine, 1))).at(1).data(), sizeof other);
    {
      Rank rank(group);
      for (int call = 0; call < 3; ++call) rank.run();
      group.exchange({});
    }
    group.exchange({});
    std::this_thread::sleep_for(1s);  // what NCCL still takes apart
    const std::size_t free = free_bytes();
    group.exchange({});
    bool acts = false;
    try {
      Rank rank(group, 8, 1);
      for (int call = 0; call < 2000; ++call) {
        if (acts = call == 20 && group.rank() == 1; acts) act(rank);
        acts = false;
        rank.run();
      }
    } catch (const Error& error) {
      if (acts) throw;  // the others have yet to hear of it
      if (stops && group.rank() == 0) kill(other, SIGKILL);
      try {
        check_gpu_is_well(free);
      } catch (const Error& worse) {
        fail(ErrorCode::internal, "{}; it came after: {}", worse.message(), error.what());
      }
      throw;
    }
  });
  return ranks.wait(25s);
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

void check_calls(Rank& rank, std::int64_t rows) {
  const Array wanted = Model(engine_of("cpu", "", rows)).run(rank.inputs).begin()->second.at(0);
  const auto* values = reinterpret_cast<const float*>(wanted.data.get());
  for (int call = 0; call < 4; ++call) {
    rank.run();
    for (std::size_t i = 0; i < rank.out.size(); ++i)
      if (!(std::abs(rank.out[i] - values[i]) < 1e-4f))
        fail(ErrorCode::internal, "call {}: element {} is {}, not {}", call, i, rank.out[i], values[i]);
  }
}

TEST_P(GpuContexts, GiveWhatOneRankGives) {
  run_rank_processes(2, [](Group& group) {
    for (const std::int64_t rows : {1, 8, 33}) {
      Rank rank(group, rows);
      check_calls(rank, rows);
    }
  });
}

// A communicator of the caller's, of the first `size` ranks.
ncclComm_t communicator(Group& group, int size) {
  const nccl::Api& api = nccl::api();
  ncclUniqueId id = {};
  if (group.rank() == 0) nccl::check(api.ncclGetUniqueId(&id), "making a name");
  const auto blobs = group.exchange(std::as_bytes(std::span(&id, 1)));
  std::memcpy(&id, blobs[0].data(), sizeof id);
  ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
  ncclComm_t comm = nullptr;
  if (group.rank() < size) nccl::check(api.ncclCommInitRankConfig(&comm, size, id, group.rank(), &config), "joining");
  return comm;
}

TEST_F(LentCommunicators, OneOfTheCallersServesAgainAndIsLeftAlone) {
  run_rank_processes(2, [](Group& group) {
    cudaSetDevice(group.rank());
    const ncclComm_t comm = communicator(group, 2);
    for (int round = 0; round < 2; ++round) {
      Rank rank(std::shared_ptr<Group>(group_from_nccl(comm)));
      check_calls(rank, 8);
      rank.context->set_communicator(nullptr);
      rank.context->set_communicator(group_from_nccl(comm));
      check_calls(rank, 8);
    }
    nccl::check(nccl::api().ncclCommDestroy(comm), "its own end");
  });
}

// With activations that are registered, in memory of the context's and of the caller's.
TEST_F(LentCommunicators, RegisteredActivationsGiveTheSameBits) {
  run_rank_processes(2, [](Group& group) {
    setenv("TANDEM_GPU_GROUP", "nccl", 1);
    std::map<std::int64_t, std::vector<float>> wanted;
    for (const char* how : {"none", "buffers", "windows"}) {
      setenv("TANDEM_NCCL_REGISTER", how, 1);
      Rank rank(group, 0);
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
    const auto check_refused = [](ErrorCode code, std::string_view words, const std::function<void()>& work) {
      try {
        work();
      } catch (const Error& error) {
        if (error.code() == code && error.message().find(words) != std::string::npos) return;
        fail(ErrorCode::internal, "not refused for '{}' but: {}", words, error.what());
      }
      fail(ErrorCode::internal, "not refused for '{}'", words);
    };
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

TEST_P(GpuContexts, AKilledRankIsNamed) {
  const auto outcomes = outcomes_when([](Rank&) { raise(SIGKILL); });
  ASSERT_TRUE(outcomes[0].finished) << "rank 0 waits for ever";
  EXPECT_FALSE(outcomes[0].ok);
  EXPECT_EQ(outcomes[0].code, ErrorCode::rank_failed) << outcomes[0].text;
  EXPECT_EQ(outcomes[0].rank, 1) << outcomes[0].text;
}

TEST_P(GpuContexts, AStoppedRankIsNamed) {
  const auto outcomes = outcomes_when([](Rank&) { raise(SIGSTOP); }, true);
  ASSERT_TRUE(outcomes[0].finished) << "rank 0 waits for ever";
  EXPECT_EQ(outcomes[0].code, ErrorCode::timeout) << outcomes[0].text;
  EXPECT_EQ(outcomes[0].rank, 1) << outcomes[0].text;
}

TEST_P(GpuContexts, ARankThatDoesNotCallIsNamedAndHearsOfIt) {
  const auto outcomes = outcomes_when([](Rank&) { std::this_thread::sleep_for(5s); });
  for (const RankOutcome& outcome : outcomes) {
    ASSERT_TRUE(outcome.finished) << "a rank waits for ever";
    EXPECT_EQ(outcome.code, ErrorCode::timeout) << outcome.text;
    EXPECT_EQ(outcome.rank, 1) << outcome.text;
  }
}

TEST_P(GpuContexts, ARankThatThrowsEndsTheOthers) {
  const auto outcomes = outcomes_when([](Rank&) { fail(ErrorCode::io, "the disk is full"); });
  ASSERT_TRUE(outcomes[0].finished) << "rank 0 waits for ever";
  EXPECT_EQ(outcomes[0].rank, 1) << outcomes[0].text;
  EXPECT_NE(outcomes[0].text.find("the disk is full"), std::string::npos) << outcomes[0].text;
}

TEST_P(GpuContexts, PlansThatDifferAreRefusedBeforeAnythingRuns) {
  RankProcesses ranks(2, [](Group& group) { Rank(group, group.rank() == 0 ? 8 : 16); });
  for (const RankOutcome& outcome : ranks.wait(50s)) {
    ASSERT_TRUE(outcome.finished);
    EXPECT_EQ(outcome.code, ErrorCode::mismatch) << outcome.text;
  }
}

TEST_P(GpuContexts, ShapesThatDifferAreRefusedBeforeAnythingRuns) {
  RankProcesses ranks(2, [](Group& group) {
    Rank rank(group, 0);
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
    Rank rank(group, 0);
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
