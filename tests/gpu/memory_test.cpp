// Memory of a GPU as its callers use it, and weights on their way there. Needs a GPU: without one every test is skipped and says so.
#include <cuda_runtime.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <random>

#include "device/upload.h"
#include "gpu/trouble.h"
#include "support/thrown.h"
#include "tandem/gpu.h"

namespace tandem {
namespace {

using testing::thrown;

class MemoryOfGpu : public ::testing::Test {
 protected:
  void SetUp() override {
    if (gpu_count() == 0) GTEST_SKIP() << "this machine has no GPU";
  }
};

std::vector<std::byte> random_bytes(std::size_t size) {
  std::vector<std::byte> bytes(size);
  std::mt19937_64 random(size);
  for (std::size_t at = 0; at + 8 <= size; at += 8) {
    const std::uint64_t word = random();
    std::memcpy(bytes.data() + at, &word, 8);
  }
  return bytes;
}

TEST_F(MemoryOfGpu, CopiesInTheOrderOfStreams) {
  const Gpu gpu(0);
  EXPECT_EQ(gpu.number(), 0);
  cudaStream_t first = nullptr, second = nullptr;
  ASSERT_EQ(cudaStreamCreateWithFlags(&first, cudaStreamNonBlocking), cudaSuccess);
  ASSERT_EQ(cudaStreamCreateWithFlags(&second, cudaStreamNonBlocking), cudaSuccess);
  const auto given = random_bytes(32 << 20);
  std::vector<std::byte> back(given.size());
  const auto memory = gpu.allocate(given.size()), other = gpu.allocate(given.size());
  for (void* later : {static_cast<void*>(second), static_cast<void*>(nullptr)}) {
    std::ranges::fill(back, std::byte{0});
    gpu.copy(memory.get(), given.data(), given.size(), first);
    gpu.order(first, later);
    gpu.copy(other.get(), memory.get(), given.size(), later);
    gpu.copy(back.data(), other.get(), given.size(), later);
    gpu.synchronize(later);
    EXPECT_EQ(back, given);
  }
  cudaStreamDestroy(first);
  cudaStreamDestroy(second);
}

// Behind work that lets the copy begin late, so that it would read what the caller has written by then.
TEST_F(MemoryOfGpu, PinnedAndManagedMemoryMayBeUsedAgainOnceACopyReturns) {
  constexpr std::size_t kBytes = std::size_t{256} << 20;
  const Gpu gpu(0);
  const testing::Flag stop;
  cudaStream_t stream = nullptr;
  ASSERT_EQ(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), cudaSuccess);
  const auto there = gpu.allocate(kBytes);
  std::vector<std::byte> back(kBytes);
  for (const bool pinned : {true, false}) {
    void* memory = nullptr;
    ASSERT_EQ(pinned ? cudaHostAlloc(&memory, kBytes, cudaHostAllocDefault) : cudaMallocManaged(&memory, kBytes), cudaSuccess);
    std::memset(memory, 1, kBytes);
    testing::launch_spin(stop.word, 0.2, stream);
    gpu.copy(there.get(), memory, kBytes, stream);
    std::memset(memory, 2, kBytes);
    gpu.copy(back.data(), there.get(), kBytes, stream);
    gpu.synchronize(stream);
    EXPECT_EQ(std::ranges::count(back, std::byte{1}), static_cast<std::ptrdiff_t>(kBytes)) << (pinned ? "pinned" : "managed");
    EXPECT_EQ(pinned ? cudaFreeHost(memory) : cudaFree(memory), cudaSuccess);
  }
  cudaStreamDestroy(stream);
}

TEST_F(MemoryOfGpu, NoMemoryForNothing) { EXPECT_EQ(Gpu(0).allocate(0), nullptr); }

TEST_F(MemoryOfGpu, AGpuThatIsNotThere) {
  for (const int number : {gpu_count(), -1})
    EXPECT_EQ(thrown([number] { const Gpu gpu(number); }).code(), ErrorCode::unsupported) << number;
}

TEST_F(MemoryOfGpu, TooMuchMemoryIsSaid) {
  const Error error = thrown([] { Gpu(0).allocate(std::size_t{1} << 50); });
  EXPECT_EQ(error.code(), ErrorCode::out_of_memory);
  EXPECT_NE(std::string(error.what()).find("1125899906842624 bytes are needed"), std::string::npos) << error.what();
}

// Pieces of all lengths, few bytes and many.
TEST_F(MemoryOfGpu, UploadBringsEveryByte) {
  const auto device = open_device("cuda", 0);
  for (const std::size_t largest : {std::size_t{1} << 20, std::size_t{150} << 20}) {
    std::vector<std::vector<std::byte>> given;
    for (const std::size_t size :
         {std::size_t{1}, std::size_t{0}, largest, (std::size_t{8} << 20) + 3, std::size_t{8} << 20, std::size_t{77}})
      given.push_back(random_bytes(std::min(size, largest)));
    std::vector<DeviceMemory> memory;
    std::vector<Upload> pieces;
    for (const auto& bytes : given) {
      memory.emplace_back(device, bytes.size());
      pieces.push_back({memory.back().data(), bytes.data(), bytes.size()});
    }
    upload(*device, pieces, Deadline::after(std::chrono::seconds(30)));
    for (std::size_t i = 0; i < given.size(); ++i) {
      std::vector<std::byte> back(given[i].size());
      const cudaError_t status = cudaMemcpy(back.data(), memory[i].data(), back.size(), cudaMemcpyDeviceToHost);
      ASSERT_EQ(status, cudaSuccess);
      EXPECT_EQ(back, given[i]) << i;
    }
  }
}

}  // namespace
}  // namespace tandem
