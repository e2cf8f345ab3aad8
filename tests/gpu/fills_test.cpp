// Fills of a graph: kernels in their place write the same bytes, between the same neighbours.
#include "device/cuda/fills.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <stdexcept>
#include <vector>

#include "gpu/here.h"

namespace tandem::cuda {
namespace {

constexpr std::size_t kBytes = std::size_t{3} << 20;

struct Fill {
  std::size_t at, bytes;
  std::uint8_t value;
};

// In turn, each over what some before it wrote; two are too large for a kernel.
const Fill kFills[] = {{0, kBytes, 1},  {64, 4096, 2},         {65, 1, 3},         {1001, 333, 0x5a}, {1 << 20, 1 << 20, 0xff},
                       {1 << 20, 8, 0}, {(1 << 20) - 3, 7, 9}, {0, kBytes / 2, 6}, {12, 4, 7}};

void require(cudaError_t status) {
  if (status != cudaSuccess) throw std::runtime_error(cudaGetErrorString(status));
}

TEST(Fills, OfAGraphByKernels) {
  if (!testing::has_gpu()) GTEST_SKIP() << "this machine has no GPU";
  std::vector<std::uint8_t> expected(kBytes), got(kBytes);
  std::uint8_t* memory = nullptr;
  cudaStream_t stream = nullptr;
  cudaGraph_t graph = nullptr;
  cudaGraphExec_t exec = nullptr;
  require(cudaMalloc(&memory, kBytes));
  require(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
  require(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
  std::size_t small = 0;
  for (const Fill& fill : kFills) {
    require(cudaMemsetAsync(memory + fill.at, fill.value, fill.bytes, stream));
    std::fill_n(expected.begin() + static_cast<std::ptrdiff_t>(fill.at), fill.bytes, fill.value);
    small += fill.bytes <= kMostFilledByKernel;
  }
  require(cudaMemcpyAsync(memory + 4096, memory, 16, cudaMemcpyDeviceToDevice, stream));
  std::copy_n(expected.begin(), 16, expected.begin() + 4096);
  require(cudaStreamEndCapture(stream, &graph));
  EXPECT_EQ(fill_by_kernels(graph), small);
  EXPECT_EQ(fill_by_kernels(graph), 0u) << "none is left";
  require(cudaGraphInstantiate(&exec, graph, 0));
  for (int run = 0; run < 3; ++run) {
    require(cudaMemsetAsync(memory, run, kBytes, stream));
    require(cudaGraphLaunch(exec, stream));
    require(cudaMemcpyAsync(got.data(), memory, kBytes, cudaMemcpyDeviceToHost, stream));
    require(cudaStreamSynchronize(stream));
    EXPECT_EQ(got, expected);
  }
  cudaGraphExecDestroy(exec);
  cudaGraphDestroy(graph);
  cudaStreamDestroy(stream);
  cudaFree(memory);
}

TEST(Fills, OfWideElements) {
  if (!testing::has_gpu()) GTEST_SKIP() << "this machine has no GPU";
  for (const unsigned bytes : {1u, 2u, 4u}) {
    std::uint8_t* memory = nullptr;
    require(cudaMalloc(&memory, 1024));
    require(cudaMemset(memory, 0, 1024));
    cudaMemsetParams fill{};
    fill.dst = memory + 8, fill.value = 0x01020304u & (bytes == 4 ? ~0u : (1u << 8 * bytes) - 1), fill.elementSize = bytes;
    fill.width = 101, fill.height = 1;
    cudaGraph_t graph = nullptr;
    cudaGraphExec_t exec = nullptr;
    cudaGraphNode_t node = nullptr;
    require(cudaGraphCreate(&graph, 0));
    require(cudaGraphAddMemsetNode(&node, graph, nullptr, 0, &fill));
    EXPECT_EQ(fill_by_kernels(graph), 1u);
    require(cudaGraphInstantiate(&exec, graph, 0));
    require(cudaGraphLaunch(exec, nullptr));
    std::vector<std::uint8_t> got(1024), expected(1024);
    require(cudaMemcpy(got.data(), memory, 1024, cudaMemcpyDeviceToHost));
    for (unsigned i = 0; i < 101 * bytes; ++i) expected[8 + i] = static_cast<std::uint8_t>(fill.value >> 8 * (i % bytes));
    EXPECT_EQ(got, expected) << bytes;
    cudaGraphExecDestroy(exec);
    cudaGraphDestroy(graph);
    cudaFree(memory);
  }
}

}  // namespace
}  // namespace tandem::cuda
