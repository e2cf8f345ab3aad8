// Collectives over peer memory, and by NCCL, for long, in graphs and out of them, and in trouble; ranks as threads and as processes.
#include <cuda_bf16.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <iostream>

#include "comm/ranks.h"
#include "gpu/peer_kernels_cuda.h"
#include "gpu/peer_rank.h"

namespace tandem::test {
namespace {

// Calls of several kinds and sizes with inputs that change from turn to turn, pauses between them, everything checked on the GPU.
class Soak {
 public:
  explicit Soak(const PeerRank& rank)
      : rank_(rank), in_(kMost), out_(kMost), gathered_(kMost * static_cast<std::size_t>(peer::kMaxRanks)), zeros_(kMost), counters_(16) {
    testing::load_kernels();
    cuda::check(cudaMemsetAsync(zeros_.at(), 0, kMost, rank.handle), "clearing");
    cuda::check(cudaMemsetAsync(counters_.at(), 0, 16, rank.handle), "clearing");
    require_that_errors_count();
    rank.meet_if_shared();
  }
  template <typename T>
  void reduce(std::int64_t count, DType dtype) {
    begin<T>(count, out_);
    const Shape shape = {count};
    rank_.group->run({.kind = Collective::all_reduce,
                      .reduction = Reduction::sum,
                      .dtype = dtype,
                      .dims = shape,
                      .stream = rank_.handle,
                      .in = in_.at(),
                      .out = out_.at()});
    testing::compare_sum(out_.as<T>(), count, rank_.group->size(), turn(), errors(), rank_.handle);
  }
  template <typename T>
  void gather(std::int64_t count, DType dtype) {
    begin<T>(count, gathered_);
    const Shape shape = {count};
    rank_.group->run(
        {.kind = Collective::all_gather, .dtype = dtype, .dims = shape, .stream = rank_.handle, .in = in_.at(), .out = gathered_.at()});
    testing::compare_gathered(gathered_.as<T>(), count, rank_.group->size(), turn(), errors(), rank_.handle);
  }
  // All-reduce with a residual of zeros, and the norm; the sum is compared. NCCL has the sum alone.
  void norm(std::int64_t rows, bool by_parts) {
    if (rank_.group->backend() != "peer") return reduce<__nv_bfloat16>(rows * kLength, DType::bf16);
    begin<__nv_bfloat16>(rows * kLength, out_);
    peer::ReduceAndNorm work{};
    work.in = in_.at();
    work.residual = work.scale = zeros_.at();
    work.y = gathered_.at();
    work.sum = out_.at();
    work.rows = rows;
    work.length = kLength;
    work.dtype = DType::bf16;
    work.aligned = true;
    work.blocks = rank_.peers().blocks();
    if (by_parts) peer::launch_norm_by_parts(rank_.peers().view(kPatience), work, rank_.handle);
    else rank_.peers().reduce_and_norm(work, rank_.handle, kPatience);
    testing::compare_sum(out_.as<__nv_bfloat16>(), rows * kLength, rank_.group->size(), turn(), errors(), rank_.handle);
  }
  // An odd number of calls that use different lanes.
  void first() {
    norm(1, false);
    norm(17, true);
    reduce<__nv_bfloat16>(4096, DType::bf16);
    reduce<float>(4, DType::f32);
    gather<float>(3000, DType::f32);
  }
  void second() {
    reduce<__nv_bfloat16>(262'144, DType::bf16);
    reduce<std::int32_t>(777, DType::i32);
    norm(100, false);
    norm(128, true);
    reduce<__nv_bfloat16>(40'000, DType::bf16);
    gather<__nv_bfloat16>(100'000, DType::bf16);
    reduce<float>(131'072, DType::f32);
  }
  cudaGraphExec_t record(void (Soak::*work)()) {
    cudaGraph_t graph = nullptr;
    cudaGraphExec_t exec = nullptr;
    cuda::check(cudaStreamBeginCapture(rank_.handle, cudaStreamCaptureModeThreadLocal), "recording");
    (this->*work)();
    cuda::check(cudaStreamEndCapture(rank_.handle, &graph), "recording");
    cuda::check(cudaGraphInstantiate(&exec, graph, 0), "recording");
    cuda::check(cudaGraphUpload(exec, rank_.handle), "recording");
    cudaGraphDestroy(graph);
    return exec;
  }
  void finish() {
    rank_.wait();
    unsigned long long errors = 1;
    std::uint32_t turns = 0;
    rank_.copy(&errors, this->errors(), sizeof errors);
    rank_.copy(&turns, turn(), sizeof turns);
    check(turns > 0, "calls were made");
    if (errors != 0) fail(ErrorCode::internal, "{} elements of {} calls are wrong", errors, turns);
    if (rank_.group->rank() == 0) std::cout << "[ cuda ] " << turns << " rows on " << rank_.group->backend() << "\n";
  }

 private:
  static constexpr std::size_t kMost = 1 << 20;
  static constexpr std::int64_t kLength = 4096;
  // What was never written is counted as wrong.
  void require_that_errors_count() {
    out_.poison(rank_.handle);
    testing::compare_sum(out_.as<float>(), 1000, rank_.group->size(), turn(), errors(), rank_.handle);
    rank_.wait();
    unsigned long long counted = 0;
    rank_.copy(&counted, errors(), sizeof counted);
    check(counted == 1000, "poison is wrong");
    cuda::check(cudaMemsetAsync(counters_.at(), 0, 16, rank_.handle), "clearing");
    rank_.wait();
  }
  template <typename T>
  void begin(std::int64_t count, Buffer& out) {
    testing::next_turn(turn(), rank_.handle);
    testing::fill(in_.as<T>(), count, rank_.group->rank(), turn(), rank_.handle);
    out.poison(rank_.handle);
    testing::pause(rank_.group->rank(), turn(), 200'000, rank_.handle);
  }
  std::uint32_t* turn() { return counters_.as<std::uint32_t>(); }
  unsigned long long* errors() { return counters_.as<unsigned long long>() + 1; }

  const PeerRank& rank_;
  Buffer in_, out_, gathered_, zeros_, counters_;
};

void soak(const PeerRank& rank, int rounds) {
  Soak soak(rank);
  soak.first();
  soak.second();
  rank.wait();
  rank.meet_if_shared();
  cudaGraphExec_t graphs[] = {soak.record(&Soak::first), soak.record(&Soak::second)};
  rank.wait();
  rank.meet_if_shared();
  for (int round = 0; round < rounds; ++round) {
    cuda::check(cudaGraphLaunch(graphs[0], rank.handle), "replaying");
    if (round % 3 != 0) cuda::check(cudaGraphLaunch(graphs[1], rank.handle), "replaying");
    if (round % 5 == 0) soak.first();
    if (round % 7 == 0) soak.reduce<float>(1 + round * 13 % 20'000, DType::f32);
    if (round % 64 == 63) rank.wait();
  }
  soak.finish();
  rank.meet_if_shared();
  for (cudaGraphExec_t graph : graphs) cudaGraphExecDestroy(graph);
}

// Rounds in which two graphs are replayed ten thousand times; where ranks share a GPU, whose kernels then wait for one another's turns, a
// few thousand.
int long_soak() { return shares_gpu() ? 1500 : 6000; }

TEST_F(Peers, TwoGraphsAndEagerCallsAlternate) {
  run_ranks(rank_count(), [](Group& control) { soak(PeerRank(control), kEmulated ? 7 : 200); });
}

TEST_F(Peers, TenThousandReplays) {
  if (kEmulated) GTEST_SKIP() << "emulated GPUs are too slow";
  run_ranks(rank_count(), [](Group& control) { soak(PeerRank(control), long_soak()); });
}

TEST_F(Peers, ARankThatNeverCallsIsNamed) {
  const int n = rank_count();
  try {
    run_ranks(n, [&](Group& control) {
      const PeerRank rank(control);
      const Shape shape = {1000};
      Buffer data(4000);
      const auto call = [&] {
        rank.group->run({.kind = Collective::all_reduce,
                         .reduction = Reduction::sum,
                         .dims = shape,
                         .stream = rank.handle,
                         .in = data.at(),
                         .out = data.at(),
                         .deadline = Deadline::after(std::chrono::seconds(1))});
      };
      call();
      rank.wait();
      if (control.rank() == 1) {  // it does nothing, but lives
        for (int i = 0; i < 500 && !rank.peers().has_failed(); ++i) usleep(10'000);
        rank.group->throw_if_failed();
        return;
      }
      const std::int64_t start = monotonic_ns();
      call();
      rank.stream->wait(Deadline::after(kPatience));
      check(monotonic_ns() - start < 4'000'000'000, "out soon after the deadline");
      rank.group->throw_if_failed();
    });
    FAIL() << "nobody noticed";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::timeout) << error.what();
    EXPECT_EQ(error.rank(), 1) << error.what();
    std::cout << error.what() << "\n";
  }
}

TEST_F(Peers, AnAbortEndsKernelsThatWait) {
  std::atomic<std::int64_t> aborted_at{0};
  std::atomic<int> ended{0};
  try {
    run_ranks(rank_count(), [&](Group& control) {
      const PeerRank rank(control);
      Buffer data(4 << 20);
      const Shape shape = {1 << 20};
      if (control.rank() == 0) {
        usleep(200'000);
        aborted_at = monotonic_ns();
        rank.group->abort("the test wants it");
        return;
      }
      const auto call = [&] {
        rank.group->run({.kind = Collective::all_reduce,
                         .reduction = Reduction::sum,
                         .dims = shape,
                         .stream = rank.handle,
                         .in = data.at(),
                         .out = data.at()});
      };
      call();
      rank.stream->wait(Deadline::after(kPatience));
      check(aborted_at != 0 && monotonic_ns() - aborted_at < 500'000'000, "out soon after the abort");
      ++ended;
      call();  // says why
    });
    FAIL() << "nobody noticed";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::aborted) << error.what();
    EXPECT_NE(error.message().find("the test wants it"), std::string::npos) << error.what();
  }
  EXPECT_EQ(ended, rank_count() - 1);
}

TEST_F(Peers, TwoRanksOnOneGpuAreRefused) {
  run_ranks(2, [](Group& control) {
    const auto device = open_device("cuda", 0);
    const OnDevice current(*device);
    std::string why;
    check(peer::make_peer_group(control, *device, Deadline::after(kRendezvousDeadline), &why) == nullptr, "no group");
    check(why.find("ranks 0 and 1 share one GPU") != std::string::npos, why);
  });
}

// Ranks as processes: this program again, with one test that is a rank.
constexpr const char* kChild = "TANDEM_TEST_PEER_CHILD";

std::vector<pid_t> start_children(const std::string& what, bool one_gpu_each) {
  std::vector<pid_t> pids;
  for (int r = 0; r < rank_count(); ++r) {
    const pid_t pid = fork();
    if (pid != 0) {
      pids.push_back(pid);
      continue;
    }
    const std::string gpu = std::to_string(r % std::max(peer_gpu_count(), 1));
    setenv(kChild, what.c_str(), 1);
    setenv("RANK", std::to_string(r).c_str(), 1);
    setenv("WORLD_SIZE", std::to_string(rank_count()).c_str(), 1);
    setenv("MASTER_ADDR", "127.0.0.1", 1);
    setenv("MASTER_PORT", std::to_string(20000 + getppid() % 20000).c_str(), 1);
    if (one_gpu_each) setenv("CUDA_VISIBLE_DEVICES", gpu.c_str(), 1);
    execl("/proc/self/exe", "peer_test", "--gtest_filter=PeerChild.IsARank", static_cast<char*>(nullptr));
    _exit(127);
  }
  return pids;
}

// Exit codes; 255 for one that had to be killed.
std::vector<int> wait_for(const std::vector<pid_t>& pids, std::chrono::seconds limit) {
  const Deadline deadline = Deadline::after(limit);
  std::vector<int> codes;
  for (const pid_t pid : pids) {
    int status = 0;
    while (waitpid(pid, &status, WNOHANG) == 0) {
      if (deadline.expired()) kill(pid, SIGKILL);
      usleep(10'000);
    }
    codes.push_back(WIFEXITED(status) ? WEXITSTATUS(status) : 255);
  }
  return codes;
}

TEST(PeerChild, IsARank) {
  const char* what = std::getenv(kChild);
  if (!what) GTEST_SKIP() << "it is started by other tests";
  const std::unique_ptr<Group> control = Group::from_env();
  if (what == std::string("cells")) {
    const PeerRank rank(*control);
    const std::int64_t n = control->size();
    every_cell(rank, *rank.group, {n, 2 * n}, 7);
  } else if (what == std::string("soak")) {
    const bool each_has_one = peer_gpu_count() >= control->size() || std::getenv("CUDA_VISIBLE_DEVICES");
    soak(PeerRank(*control), each_has_one && !kEmulated ? 500 : 5);
  } else if (what == std::string("long")) {
    soak(PeerRank(*control), long_soak());
  } else if (what == std::string("long by nccl")) {
    soak(PeerRank(*control, "nccl"), long_soak());
  } else if (what == std::string("killed")) {
    const PeerRank rank(*control);
    const Shape shape = {1000};
    Buffer data(4000);
    try {
      for (int i = 0; i < 1'000'000; ++i) {
        rank.group->run({.kind = Collective::all_reduce,
                         .reduction = Reduction::sum,
                         .dims = shape,
                         .stream = rank.handle,
                         .in = data.at(),
                         .out = data.at()});
        rank.wait();
        if (i == 20 && control->rank() == 1) kill(getpid(), SIGKILL);
      }
      FAIL() << "nobody noticed";
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::rank_failed) << error.what();
      EXPECT_EQ(error.rank(), 1) << error.what();
    }
  }
}

TEST_F(Peers, Processes) {
  for (const bool one_gpu_each : {false, true})
    for (const char* what : {"cells", "soak"})
      for (const int code : wait_for(start_children(what, one_gpu_each), std::chrono::seconds(120)))
        EXPECT_EQ(code, 0) << what << (one_gpu_each ? ", each sees one GPU" : "");
}

// In processes that each have a GPU: on one that they share each round would wait for the others' turns.
void expect_long_soak(const char* what) {
  if (kEmulated) GTEST_SKIP() << "emulated GPUs are too slow";
  if (peer_gpu_count() < 2 || peer_gpu_count() < rank_count()) GTEST_SKIP() << "each of two ranks or more needs a GPU";
  for (const int code : wait_for(start_children(what, false), std::chrono::seconds(110))) EXPECT_EQ(code, 0) << what;
}

TEST_F(Peers, TenThousandReplaysInProcesses) { expect_long_soak("long"); }

TEST_F(Peers, TenThousandReplaysInProcessesByNccl) { expect_long_soak("long by nccl"); }

TEST_F(Peers, AProcessThatIsKilledIsNamed) {
  const std::int64_t start = monotonic_ns();
  const std::vector<int> codes = wait_for(start_children("killed", false), std::chrono::seconds(60));
  for (std::size_t r = 0; r < codes.size(); ++r) EXPECT_EQ(codes[r], r == 1 ? 255 : 0) << "rank " << r;
  std::cout << static_cast<double>(monotonic_ns() - start) * 1e-9 << " s from start to end\n";
}

}  // namespace
}  // namespace tandem::test
