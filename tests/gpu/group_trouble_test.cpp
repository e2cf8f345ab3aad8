// Ranks with a GPU each that are given what does not fit: GPUs that may not reach each other, other sizes, ranks and engine files,
// communicators that are gone, no memory on one of them. Needs two GPUs: with fewer every test is skipped and says so.
#include <cuda_runtime.h>
#include <gtest/gtest.h>
#include <signal.h>

#include <algorithm>
#include <cstdlib>
#include <memory>
#include <optional>
#include <thread>

#include "comm/rank_processes.h"
#include "core/check.h"
#include "gpu/context_rank.h"
#include "gpu/gpu_ranks.h"
#include "support/temporary_folder.h"
#include "tandem/nccl.h"
#include "tandem/network.h"

namespace tandem::test {
namespace {

using namespace std::chrono_literals;

class GroupTrouble : public ::testing::Test {
 protected:
  void SetUp() override {
    if (const int count = gpu_count(); count < 2) GTEST_SKIP() << "2 GPUs are needed, this machine has " << count;
  }
};

// What carries collectives of the ranks, after they have tried it.
std::string carried_by(Group& group) {
  GpuRank rank(group, "");
  if (rank.group)
    run_and_check_op(rank, *rank.group, {.kind = Collective::all_reduce, .reduction = Reduction::sum, .dtype = DType::bf16}, {3, 1000}, 5);
  group.exchange({});
  return rank.group ? std::string(rank.group->backend()) : rank.why;
}

TEST_F(GroupTrouble, GpusThatMayNotReachEachOtherGoByNccl) {
  run_rank_processes(2, [](Group& group) {
    if (group.rank() == 1) setenv("NCCL_P2P_DISABLE", "1", 1);  // what one says counts for all
    check_refused(ErrorCode::unsupported, "peer on rank 1: NCCL_P2P_DISABLE is set", [&] { GpuRank(group, "peer"); });
    group.exchange({});
    setenv("NCCL_P2P_DISABLE", "1", 1);
    check(carried_by(group) == "nccl", "NCCL has other ways");
    ContextRank rank(group);
    check_calls(rank, 8);
    group.exchange({});
  });
}

TEST_F(GroupTrouble, WhatIsAskedForIsTaken) {
  run_rank_processes(2, [](Group& group) {
    for (const char* way : {"nccl", "peer"}) {
      setenv("TANDEM_GPU_GROUP", way, 1);
      check(carried_by(group) == way, way);
    }
    setenv("TANDEM_GPU_GROUP", "host", 1);
    check(carried_by(group) == "TANDEM_GPU_GROUP asks for the host", "through the host");
    setenv("TANDEM_GPU_GROUP", group.rank() == 0 ? "nccl" : "peer", 1);
    check_refused(ErrorCode::mismatch, "ranks 0 and 1 disagree on what carries collectives", [&] { GpuRank(group, ""); });
    setenv("TANDEM_GPU_GROUP", "pigeons", 1);
    check_refused(ErrorCode::unsupported, "collectives cannot go through pigeons", [&] { GpuRank(group, ""); });
  });
}

TEST_F(GroupTrouble, GroupsThatDoNotFitAreRefusedAtOnce) {
  run_rank_processes(2, [](Group& group) {
    const Engine engine = engine_of("cuda", "tp=2", 8);
    Context context(engine, {.rank = group.rank()});
    const std::shared_ptr<Group> alone(group.split({{0}, {1}})), reversed(group.split({{1, 0}}));
    check_refused(ErrorCode::mismatch, "the engine is for 2 ranks, the group has 1", [&] { context.set_communicator(alone); });
    check_refused(ErrorCode::mismatch, "is loaded for rank", [&] { context.set_communicator(reversed); });
  });
}

TEST_F(GroupTrouble, EngineFilesThatDifferAreRefusedBeforeAnythingRuns) {
  RankProcesses ranks(2, [](Group& group) {
    const testing::TemporaryFolder folder;
    const std::string path = folder.path() / "mlp.tandem";
    engine_of("cuda", "tp=2", group.rank() == 0 ? 0 : 8).save(path);
    ContextRank(load_engine(path), std::shared_ptr<Group>(&group, [](Group*) {}), {});
  });
  for (const RankOutcome& outcome : ranks.wait(50s)) {
    ASSERT_TRUE(outcome.finished);
    EXPECT_EQ(outcome.code, ErrorCode::mismatch) << outcome.text;
    EXPECT_NE(outcome.text.find("ranks 0 and 1 disagree on the plan"), std::string::npos) << outcome.text;
  }
}

class NoMemory final : public DeviceAllocator {
 public:
  void* allocate(std::size_t, std::size_t, void*) override { return nullptr; }
  void release(void*, void*) noexcept override {}
};

// A rank has none for its activations: it says so, and the other one hears of it.
TEST_F(GroupTrouble, NoMemoryOnOneRankEndsTheOther) {
  RankProcesses ranks(2, [](Group& group) {
    ContextOptions options;
    if (group.rank() == 1) options.allocator = std::make_shared<NoMemory>();
    ContextRank rank(engine_of("cuda", "tp=2", 8), std::shared_ptr<Group>(&group, [](Group*) {}), options);
    rank.run();
  });
  const auto outcomes = ranks.wait(50s);
  ASSERT_TRUE(outcomes[0].finished && outcomes[1].finished) << "a rank waits for ever";
  EXPECT_EQ(outcomes[1].code, ErrorCode::out_of_memory) << outcomes[1].text;
  EXPECT_EQ(outcomes[0].rank, 1) << outcomes[0].text;
  EXPECT_LT(outcomes[0].seconds, 30) << "it need not wait for a deadline";
}

// All memory of the current GPU but some for a stream: twice that is less than windows and rooms of these tests have.
class FullGpu {
 public:
  FullGpu() {
    constexpr std::size_t kSpare = std::size_t{32} << 20;
    std::size_t free = 0, total = 0;
    check(cudaMemGetInfo(&free, &total) == cudaSuccess, "the GPU tells its memory");
    void* spare = nullptr;
    check(cudaMalloc(&spare, kSpare) == cudaSuccess, "there is memory");
    for (std::size_t piece = free; piece >= kSpare; piece /= 2)
      for (void* memory = nullptr; cudaMalloc(&memory, piece) == cudaSuccess;) held_.push_back(memory);
    cudaGetLastError();
    cudaFree(spare);
  }
  ~FullGpu() {
    for (void* memory : held_) cudaFree(memory);
  }
  FullGpu(const FullGpu&) = delete;

 private:
  std::vector<void*> held_;
};

// No GPU memory for what the others push into, on one rank: all hear which.
TEST_F(GroupTrouble, NoMemoryForPeersOnOneRankIsToldToAll) {
  run_rank_processes(2, [](Group& group) {
    cudaSetDevice(group.rank());
    {
      std::optional<FullGpu> full;
      if (group.rank() == 1) full.emplace();
      check_refused(ErrorCode::unsupported, "rank 1: allocating memory", [&] { GpuRank(group, "peer"); });
    }
    group.exchange({});
    check(GpuRank(group, "peer").group != nullptr, "with memory they have their group");
    group.exchange({});
  });
}

// One rank of attention over two that push their heads to one another, all in memory of its GPU.
class PushedAttention {
 public:
  explicit PushedAttention(Group& group)
      : device_(open_device("cuda", group.rank())), on_device_(*device_), engine_(engine()), context_(engine_, {.rank = group.rank()}) {
    context_.set_communicator(std::shared_ptr<Group>(&group, [](Group*) {}));
    set_rows(kMost);
    for (auto* memory : {&q_, &k_, &v_, &out_}) *memory = std::make_unique<DeviceMemory>(device_, kMost / 2 * kRowBytes);
    activations_ = std::make_unique<DeviceMemory>(device_, context_.device_memory_bytes());
    context_.set_device_memory(activations_->data(), activations_->bytes());
    const std::vector<std::uint16_t> ones(out_->bytes() / 2, 0x3c00), twos(ones.size(), 0x4000);  // in f16
    for (auto* memory : {&q_, &k_}) check(cudaMemset((*memory)->data(), 0, (*memory)->bytes()) == cudaSuccess, "clearing");
    check(cudaMemcpy(v_->data(), group.rank() == 0 ? ones.data() : twos.data(), v_->bytes(), cudaMemcpyDefault) == cudaSuccess, "copying");
  }
  // Every row attends alike to those of both ranks.
  void run(std::int64_t rows) {
    set_rows(rows);
    check(cudaMemset(out_->data(), 0xff, out_->bytes()) == cudaSuccess && cudaDeviceSynchronize() == cudaSuccess, "clearing");
    const void* const in[] = {q_->data(), k_->data(), v_->data()};
    void* const out[] = {out_->data()};
    context_.enqueue(in, out);
    context_.synchronize();
    std::vector<std::uint16_t> got(static_cast<std::size_t>(rows) / 2 * kRowBytes / 2);
    check(cudaMemcpy(got.data(), out_->data(), got.size() * 2, cudaMemcpyDefault) == cudaSuccess, "copying");
    check(std::ranges::all_of(got, [](std::uint16_t value) { return std::abs(value - 0x3e00) < 4; }), "all are 1.5");
  }
  static constexpr std::int64_t kMost = 65536;

 private:
  static constexpr std::int64_t kHeads = 8, kSize = 128;
  static constexpr std::size_t kRowBytes = kHeads * kSize * 2;
  static Engine engine() {
    Network network("cp=2");
    network.symbol("rows", 2, 256, kMost);
    std::vector<Network::Value> operands;
    for (const char* name : {"q", "k", "v"}) operands.push_back(network.input(name, DType::f16, {1, kHeads, "rows", kSize}, "2:cp"));
    network.output("out", network.attention(operands[0], operands[1], operands[2], {.axis = "cp"}), "2:cp");
    return build(network, {.device = "cuda", .kernels = {"cuda_attention_all_to_all"}});
  }
  void set_rows(std::int64_t rows) {
    for (std::size_t input = 0; input < 3; ++input) context_.set_input_shape(input, {1, kHeads, rows, kSize});
  }

  std::shared_ptr<Device> device_;
  OnDevice on_device_;
  std::unique_ptr<DeviceMemory> q_, k_, v_, out_, activations_;
  Engine engine_;
  Context context_;
};

// A context that would need more of it serves what it can, and what it could not once there is memory.
TEST_F(GroupTrouble, NoMemoryForARoomOnOneRankLeavesSmallerShapes) {
  run_rank_processes(2, [](Group& group) {
    setenv("TANDEM_GPU_GROUP", "peer", 1);
    PushedAttention attention(group);
    attention.run(256);
    {
      std::optional<FullGpu> full;
      if (group.rank() == 1) full.emplace();
      group.exchange({});
      for (int call = 0; call < 2; ++call)
        check_refused(ErrorCode::out_of_memory, "rank 1: allocating memory for peers", [&] { attention.run(PushedAttention::kMost); });
      for (int call = 0; call < 3; ++call) attention.run(256);
      group.exchange({});
    }
    group.exchange({});
    for (int call = 0; call < 3; ++call) attention.run(PushedAttention::kMost), attention.run(256);
    group.exchange({});
  });
}

TEST_F(GroupTrouble, CommunicatorsThatAreGoneAreRefused) {
  run_rank_processes(2, [](Group& group) {
    cudaSetDevice(group.rank());
    const ncclComm_t destroyed = communicator(group, 2), aborted = communicator(group, 2);
    nccl::check(nccl::api().ncclCommDestroy(destroyed), "the end of one");
    group.exchange({});
    nccl::check(nccl::api().ncclCommAbort(aborted), "the end of the other");
    for (const ncclComm_t gone : {destroyed, aborted}) check_refused(ErrorCode::invalid_argument, "", [&] { group_from_nccl(gone); });
  });
}

// A context has a communicator of its own from its collective point on.
TEST_F(GroupTrouble, ALentCommunicatorThatIsAbortedLaterIsNotMissed) {
  run_rank_processes(2, [](Group& group) {
    cudaSetDevice(group.rank());
    const ncclComm_t comm = communicator(group, 2);
    ContextRank rank(std::shared_ptr<Group>(group_from_nccl(comm)));
    check_calls(rank, 8);
    group.exchange({});
    nccl::check(nccl::api().ncclCommAbort(comm), "its end");
    check_calls(rank, 8);
    group.exchange({});
  });
}

// One rank does not come to the collective point: there is nothing but the communicator to tell, which is of no more use then.
TEST_F(GroupTrouble, ALentCommunicatorThatIsStuckIsAborted) {
  RankProcesses ranks(2, [](Group& group) {
    cudaSetDevice(group.rank());
    const ncclComm_t comm = communicator(group, 2);
    if (group.rank() == 1) return std::this_thread::sleep_for(8s);
    const std::int64_t start = monotonic_ns();
    check_refused(ErrorCode::timeout, "no longer usable", [&] {
      ContextRank(engine_of("cuda", "tp=2", 8), std::shared_ptr<Group>(group_from_nccl(comm)), {.rendezvous_deadline_s = 1});
    });
    check(monotonic_ns() - start < 6'000'000'000, "out soon");
    check_gpu_is_well(0);
  });
  const auto outcomes = ranks.wait(40s);
  ASSERT_TRUE(outcomes[0].finished) << "rank 0 waits for ever";
  EXPECT_TRUE(outcomes[0].ok) << outcomes[0].text;
}

TEST_F(GroupTrouble, ARankKilledOverALentCommunicatorEndsTheOther) {
  RankProcesses ranks(2, [](Group& group) {
    cudaSetDevice(group.rank());
    const ncclComm_t comm = communicator(group, 2);
    {
      ContextRank rank(std::shared_ptr<Group>(group_from_nccl(comm)), 8, 1);
      for (int call = 0; call < 5; ++call) rank.run();
      group.exchange({});
      if (group.rank() == 1) raise(SIGKILL);
      const std::int64_t start = monotonic_ns();
      try {
        for (int call = 0; call < 1000; ++call) rank.run();
        fail(ErrorCode::internal, "it hears nothing");
      } catch (const Error& error) {
        check(error.code() == ErrorCode::timeout || error.code() == ErrorCode::rank_failed, error.what());
        check(monotonic_ns() - start < 4'000'000'000, "out within four seconds");
      }
    }
    check_gpu_is_well(0);
  });
  const auto outcomes = ranks.wait(40s);
  ASSERT_TRUE(outcomes[0].finished) << "rank 0 waits for ever";
  EXPECT_TRUE(outcomes[0].ok) << outcomes[0].text;
}

}  // namespace
}  // namespace tandem::test
