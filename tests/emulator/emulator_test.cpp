// Emulated GPUs do what CUDA says that GPUs do.
#include <gtest/gtest.h>

#include <numeric>
#include <set>

#include "device/cuda/dependent.cuh"
#include "device/cuda/memory.cuh"
#include "emulator/cuda_words.h"

namespace tandem::emulator {
namespace {

// What kernels are run with: a stream, and memory that the GPU counts as its own.
class Emulator : public ::testing::Test {
 protected:
  void SetUp() override {
    ASSERT_EQ(cudaSetDevice(0), cudaSuccess);
    ASSERT_EQ(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), cudaSuccess);
  }
  void TearDown() override { cudaStreamDestroy(stream_); }

  template <typename... Parameters, typename... Arguments>
  void run(dim3 grid, dim3 block, void (*kernel)(Parameters...), Arguments... arguments) {
    cuda::start_kernel(stream_, kernel, grid, block, 0, arguments...);
    EXPECT_EQ(cudaGetLastError(), cudaSuccess);
  }
  void wait() const {
    while (cudaStreamQuery(stream_) == cudaErrorNotReady) std::this_thread::yield();
  }
  cudaStream_t stream_ = nullptr;
};

__global__ void count_places(int* counts) {
  const unsigned block = blockIdx.x + gridDim.x * (blockIdx.y + gridDim.y * blockIdx.z);
  const unsigned thread = threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z);
  ++counts[block * blockDim.x * blockDim.y * blockDim.z + thread];
}

TEST_F(Emulator, EveryThreadOfEveryBlockRunsOnce) {
  std::vector<int> counts(5 * 3 * 2 * 7 * 3 * 2);
  run({5, 3, 2}, {7, 3, 2}, count_places, counts.data());
  wait();
  for (const int count : counts) EXPECT_EQ(count, 1);
}

// Each thread reads what another wrote before the barrier; half of them end before the last one.
__global__ void pass_on(int* results) {
  __shared__ int values[256];
  const unsigned i = threadIdx.x;
  values[i] = static_cast<int>(i + 1000 * blockIdx.x);
  __syncthreads();
  const int theirs = values[(i + 100) % 256];
  const int any = __syncthreads_or(i == 77 && blockIdx.x % 2 == 1);
  results[256 * blockIdx.x + i] = any ? theirs : -theirs;
  if (i % 2 == 0) return;
  values[i] = 0;
  __syncthreads();
  results[256 * blockIdx.x + i] += values[i - i % 32 + 1];
}

TEST_F(Emulator, BarriersOfManyBlocks) {
  constexpr unsigned kBlocks = 3 * kBlocksAtOnce;
  std::vector<int> results(256 * kBlocks);
  run({kBlocks}, {256}, pass_on, results.data());
  wait();
  for (unsigned i = 0; i < results.size(); ++i) {
    const int theirs = static_cast<int>((i + 100) % 256 + 1000 * (i / 256));
    EXPECT_EQ(results[i], i / 256 % 2 == 1 ? theirs : -theirs) << i;
  }
}

__global__ void sum_warps(float* sums) {
  float x = static_cast<float>(threadIdx.x);
  for (int step = 16; step > 0; step /= 2) x += __shfl_xor_sync(~0u, x, step);
  sums[threadIdx.x] = x;
}

TEST_F(Emulator, WarpsExchange) {
  std::vector<float> sums(96);
  run({1}, {96}, sum_warps, sums.data());
  wait();
  for (unsigned i = 0; i < 96; ++i) EXPECT_EQ(sums[i], static_cast<float>(i / 32 * 32 * 32 + 31 * 16)) << i;
}

__global__ void wait_for_flag(const std::uint32_t* flag, std::uint32_t* seen) {
  while (cuda::load_acquire(flag) == 0) clock64();
  atomicAdd(seen, 1u);
}
__global__ void raise_flag(std::uint32_t* flag) { cuda::store_release(flag, 1); }

// Kernels of two streams go on side by side, also where the first fills its blocks with threads that wait.
TEST_F(Emulator, StreamsGoOnSideBySide) {
  std::uint32_t flag = 0, seen = 0;
  cudaStream_t other = nullptr;
  ASSERT_EQ(cudaStreamCreateWithFlags(&other, 0), cudaSuccess);
  run({kBlocksAtOnce / 2}, {64}, wait_for_flag, &flag, &seen);
  cuda::start_kernel(other, raise_flag, dim3(1), dim3(1), 0, &flag);
  wait();
  EXPECT_EQ(seen, 64u * kBlocksAtOnce / 2);
  cudaStreamDestroy(other);
}

// An event that was recorded again, elsewhere and earlier, says nothing of what was waited for before.
TEST_F(Emulator, EventsAreOfTheirLastRecord) {
  std::uint32_t flag = 0, seen = 0;
  cudaStream_t other = nullptr, third = nullptr;
  cudaEvent_t event = nullptr;
  for (cudaStream_t* stream : {&other, &third}) ASSERT_EQ(cudaStreamCreateWithFlags(stream, 0), cudaSuccess);
  ASSERT_EQ(cudaEventCreateWithFlags(&event, cudaEventDisableTiming), cudaSuccess);
  run({1}, {1}, wait_for_flag, &flag, &seen);
  EXPECT_EQ(cudaEventRecord(event, stream_), cudaSuccess);
  EXPECT_EQ(cudaStreamWaitEvent(third, event, 0), cudaSuccess);
  EXPECT_EQ(cudaEventRecord(event, other), cudaSuccess);
  while (cudaEventQuery(event) == cudaErrorNotReady) std::this_thread::yield();
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  EXPECT_EQ(cudaStreamQuery(third), cudaErrorNotReady);
  cuda::start_kernel(other, raise_flag, dim3(1), dim3(1), 0, &flag);
  while (cudaStreamQuery(third) == cudaErrorNotReady) std::this_thread::yield();
  EXPECT_EQ(seen, 1u);
  cudaEventDestroy(event), cudaStreamDestroy(other), cudaStreamDestroy(third);
}

__global__ void append(int* list, int value) { list[++list[0]] = value; }

// A graph that forks and joins again, replayed: the order that its events ask for, each time.
TEST_F(Emulator, GraphsKeepTheOrderOfTheirEvents) {
  cudaStream_t other = nullptr;
  cudaEvent_t forked = nullptr, joined = nullptr;
  cudaGraph_t graph = nullptr;
  cudaGraphExec_t exec = nullptr;
  ASSERT_EQ(cudaStreamCreateWithFlags(&other, 0), cudaSuccess);
  for (cudaEvent_t* event : {&forked, &joined}) ASSERT_EQ(cudaEventCreateWithFlags(event, cudaEventDisableTiming), cudaSuccess);
  std::vector<int> list(64);
  const auto add = [&](cudaStream_t to, int value) { cuda::start_kernel(to, append, dim3(1), dim3(1), 0, list.data(), value); };
  ASSERT_EQ(cudaStreamBeginCapture(stream_, cudaStreamCaptureModeRelaxed), cudaSuccess);
  add(stream_, 1);
  EXPECT_EQ(cudaEventRecord(forked, stream_), cudaSuccess);
  EXPECT_EQ(cudaStreamWaitEvent(other, forked, 0), cudaSuccess);
  add(other, 2);
  EXPECT_EQ(cudaEventRecord(joined, other), cudaSuccess);
  EXPECT_EQ(cudaStreamWaitEvent(stream_, joined, 0), cudaSuccess);
  add(stream_, 3);
  ASSERT_EQ(cudaStreamEndCapture(stream_, &graph), cudaSuccess);
  EXPECT_EQ(list[0], 0) << "recorded work does not run";
  ASSERT_EQ(cudaGraphInstantiate(&exec, graph, 0), cudaSuccess);
  for (int replay = 0; replay < 10; ++replay) EXPECT_EQ(cudaGraphLaunch(exec, stream_), cudaSuccess);
  wait();
  ASSERT_EQ(list[0], 30);
  for (int i = 0; i < 30; ++i) EXPECT_EQ(list[static_cast<std::size_t>(i) + 1], i % 3 + 1);
  add(other, 4);  // is recorded no more
  while (cudaStreamQuery(other) == cudaErrorNotReady) std::this_thread::yield();
  EXPECT_EQ(list[31], 4);
  cudaGraphDestroy(graph), cudaGraphExecDestroy(exec);
  cudaEventDestroy(forked), cudaEventDestroy(joined), cudaStreamDestroy(other);
}

TEST_F(Emulator, MemoryIsOfItsGpu) {
  void* memory = nullptr;
  ASSERT_EQ(cudaMalloc(&memory, 1000), cudaSuccess);
  cudaPointerAttributes found{};
  ASSERT_EQ(cudaPointerGetAttributes(&found, static_cast<char*>(memory) + 999), cudaSuccess);
  EXPECT_EQ(found.type, cudaMemoryTypeDevice);
  ASSERT_EQ(cudaPointerGetAttributes(&found, &memory), cudaSuccess);
  EXPECT_EQ(found.type, cudaMemoryTypeUnregistered);
  EXPECT_EQ(cudaFree(memory), cudaSuccess);
  EXPECT_EQ(cudaFree(memory), cudaErrorInvalidValue);
  EXPECT_EQ(cudaMalloc(&memory, std::size_t{1} << 50), cudaErrorMemoryAllocation);
  EXPECT_EQ(cudaGetLastError(), cudaErrorMemoryAllocation);
  EXPECT_EQ(cudaGetLastError(), cudaSuccess);
}

// Threads take other turns each time: what depends on the order differs now and then.
__global__ void first_of_all(int* first) {
  if (*first < 0) *first = static_cast<int>(threadIdx.x);
}

TEST_F(Emulator, TurnsDiffer) {
  std::set<int> all;
  for (int i = 0; i < 20; ++i) {
    int first = -1;
    run({1}, {64}, first_of_all, &first);
    wait();
    all.insert(first);
  }
  EXPECT_GT(all.size(), 3u);
}

}  // namespace
}  // namespace tandem::emulator
