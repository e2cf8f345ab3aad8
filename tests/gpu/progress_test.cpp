// What GPUs tell of the collectives that they have begun, where calls are recorded and the host is absent in a replay. Needs two GPUs: with
// fewer every test is skipped and says so.
#include <cuda_runtime.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <functional>
#include <memory>
#include <thread>
#include <vector>

#include "comm/shm/shm_group.h"
#include "core/check.h"
#include "device/cuda/runtime.h"
#include "gpu/context_rank.h"
#include "gpu/gpu_ranks.h"

namespace tandem::test {
namespace {

using namespace std::chrono_literals;

constexpr int kCalls = 5, kReplays = 7;
constexpr std::int64_t kCount = 4096;
constexpr auto kLimit = 20s;

// Calls of one rank, each of which gives 1 + 2 + … + ranks in every element of `out`.
class Calls {
 public:
  explicit Calls(GpuRank& rank) : rank_(rank), in_(rank.device, kBytes), out_(rank.device, kBytes) {
    const std::vector<float> values(kCount, static_cast<float>(rank.control.rank() + 1));
    cuda::check(cudaMemcpy(in_.data(), values.data(), kBytes, cudaMemcpyDefault), "copying");
    clear();
  }
  void give(Group& group, int calls) const {
    const Shape dims = {kCount};
    for (int i = 0; i < calls; ++i)
      group.run({.kind = Collective::all_reduce,
                 .reduction = Reduction::sum,
                 .dims = dims,
                 .stream = rank_.stream->native(),
                 .in = in_.data(),
                 .out = out_.data(),
                 .deadline = Deadline::after(kLimit)});
  }
  void clear() const { rank_.device->clear(out_.data(), kBytes, *rank_.stream); }
  void check_sums() const {
    std::vector<float> values(kCount);
    cuda::check(cudaMemcpy(values.data(), out_.data(), kBytes, cudaMemcpyDefault), "copying");
    const int n = rank_.control.size();
    check(std::ranges::all_of(values, [&](float value) { return value == static_cast<float>(n * (n + 1) / 2); }), "the sums");
  }

 private:
  static constexpr std::size_t kBytes = kCount * sizeof(float);
  GpuRank& rank_;
  DeviceMemory in_, out_;
};

// A recording of the test's own, not the library's.
class Recorded {
 public:
  Recorded(cudaStream_t stream, const std::function<void()>& work) : stream_(stream) {
    cuda::check(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal), "recording");
    work();
    cuda::check(cudaStreamEndCapture(stream, &graph_), "recording");
    cuda::check(cudaGraphInstantiate(&exec_, graph_, 0), "recording");
  }
  ~Recorded() {
    cudaGraphExecDestroy(exec_);
    cudaGraphDestroy(graph_);
  }
  Recorded(const Recorded&) = delete;
  void launch() const { cuda::check(cudaGraphLaunch(exec_, stream_), "replaying"); }

 private:
  cudaStream_t stream_;
  cudaGraph_t graph_ = nullptr;
  cudaGraphExec_t exec_ = nullptr;
};

std::uint64_t begun(const Group& control) { return control.progress(control.rank()).sequence; }

// By this rank's GPU.
std::uint64_t counted(Group& control) { return dynamic_cast<shm::ShmGroup&>(control).gpu_sequence(); }

void wait(GpuRank& rank) { rank.stream->wait(Deadline::after(kLimit)); }

class Words : public testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    if (const int count = gpu_count(); count < 2) GTEST_SKIP() << "2 GPUs are needed, this machine has " << count;
  }
};
INSTANTIATE_TEST_SUITE_P(By, Words, testing::Values("nccl", "peer"), [](const auto& info) { return std::string(info.param); });

// Calls that are recorded are not counted, each replay counts all of them, in a recording of the library's and in one of the caller's.
TEST_P(Words, EachReplayCountsItsCalls) {
  run_gpu_ranks(Isolation::processes, 2, GetParam(), [](GpuRank& rank) {
    const Calls calls(rank);
    const auto expect = [&](std::uint64_t before, std::uint64_t more, const char* what) {
      wait(rank);
      const std::uint64_t now = begun(rank.control);
      check(now == before + more, fmt::format("{}: {} more, not {}", what, now - before, more));
    };
    std::uint64_t before = begun(rank.control);
    calls.give(*rank.group, kCalls);
    expect(before, kCalls, "calls at once");
    before = begun(rank.control);
    const Recorded callers(cuda::handle_of(*rank.stream), [&] { calls.give(*rank.group, kCalls); });
    const auto own = rank.device->record(*rank.stream, [&] { calls.give(*rank.group, kCalls); });
    expect(before, 0, "calls that are recorded");
    for (const bool by_caller : {true, false}) {
      calls.clear();
      before = begun(rank.control);
      for (int i = 0; i < kReplays; ++i) {
        if (by_caller) callers.launch();
        else own->launch(*rank.stream);
        if (i % 3 == 1) calls.give(*rank.group, 1);
      }
      expect(before, kReplays * kCalls + kReplays / 3, by_caller ? "replays of the caller's" : "replays of ours");
      calls.check_sums();
    }
  });
}

// A collective that waits for another rank has been counted, also in the middle of a replay; the one behind it has not.
TEST_P(Words, ACollectiveThatWaitsIsCounted) {
  std::atomic<bool> seen{false};
  run_gpu_ranks(Isolation::threads, 2, GetParam(), [&](GpuRank& rank) {
    const Calls calls(rank);
    calls.give(*rank.group, 1);
    wait(rank);
    const bool first = rank.control.rank() == 0;
    const Recorded one(cuda::handle_of(*rank.stream), [&] { calls.give(*rank.group, first ? 3 : 1); });
    const Recorded two(cuda::handle_of(*rank.stream), [&] { calls.give(*rank.group, 2); });
    calls.clear();
    rank.control.exchange({});
    const std::uint64_t before = begun(rank.control);
    one.launch();
    if (first) {
      for (const Deadline patience = Deadline::after(5s); begun(rank.control) < before + 2 && !patience.expired();)
        std::this_thread::sleep_for(1ms);
      std::this_thread::sleep_for(100ms);
      const std::uint64_t now = begun(rank.control);
      seen = true;
      check(now == before + 2, fmt::format("rank 0 has begun {} of three, of which the second waits", now - before));
    } else {
      for (const Deadline patience = Deadline::after(10s); !seen && !patience.expired();) std::this_thread::sleep_for(1ms);
      const std::uint64_t now = begun(rank.control);
      check(now == before + 1, fmt::format("rank 1 has begun {} of one", now - before));
      two.launch();
    }
    wait(rank);
    check(begun(rank.control) == before + 3, "in the end both have begun three");
    calls.check_sums();
  });
}

// A rank that runs step by step, as with other addresses, counts as much as one that replays: else one would seem behind for ever.
TEST_P(Words, ARunCountsAsMuchAsItsReplay) {
  setenv("TANDEM_GPU_GROUP", GetParam(), 1);
  run_gpu_ranks(Isolation::processes, 2, GetParam(), [](GpuRank& gpu) {
    ContextRank rank(gpu.control);
    std::uint64_t first = 0;
    for (int i = 0; i < 6; ++i) {  // at once, recorded, replayed
      const std::uint64_t before = counted(gpu.control);
      rank.run();
      const std::uint64_t more = counted(gpu.control) - before;
      if (i == 0) first = more;
      check(more > 0 && more == first, fmt::format("run {} counts {}, the first one {}", i, more, first));
    }
  });
  unsetenv("TANDEM_GPU_GROUP");
}

// A context in a stream that the caller records: every replay counts as much on both ranks, and gives what one rank gives.
TEST_P(Words, AContextInACallersRecordingIsCounted) {
  setenv("TANDEM_GPU_GROUP", GetParam(), 1);
  run_gpu_ranks(Isolation::processes, 2, GetParam(), [](GpuRank& gpu) {
    ContextRank rank(gpu.control);
    check_calls(rank, 8);
    const Array& input = rank.inputs.begin()->second;
    const std::vector<float> wanted = rank.out;
    const DeviceMemory in(gpu.device, input.size_bytes()), out(gpu.device, wanted.size() * sizeof(float));
    cuda::check(cudaMemcpy(in.data(), input.data.get(), input.size_bytes(), cudaMemcpyDefault), "copying");
    const void* const from[] = {in.data()};
    void* const to[] = {out.data()};
    const Recorded recorded(cuda::handle_of(*gpu.stream), [&] { rank.context->enqueue(from, to, gpu.stream->native()); });
    std::uint64_t each = 0;
    for (int i = 0; i < kReplays; ++i) {
      gpu.device->clear(out.data(), out.bytes(), *gpu.stream);
      gpu.control.exchange({});
      const std::uint64_t before = begun(gpu.control);
      recorded.launch();
      wait(gpu);
      const std::uint64_t more = begun(gpu.control) - before;
      if (i == 0) each = more;
      check(more > 0 && more == each, fmt::format("replay {} counts {}, the first one {}", i, more, each));
      std::vector<float> got(wanted.size());
      cuda::check(cudaMemcpy(got.data(), out.data(), out.bytes(), cudaMemcpyDefault), "copying");
      check(got == wanted, "a replay gives what a run gives");
    }
    for (const auto& theirs : gpu.control.exchange(std::as_bytes(std::span(&each, 1))))
      check(std::ranges::equal(theirs, std::as_bytes(std::span(&each, 1))), "both ranks count as much");
  });
  unsetenv("TANDEM_GPU_GROUP");
}

}  // namespace
}  // namespace tandem::test
