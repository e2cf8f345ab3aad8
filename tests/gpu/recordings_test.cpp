// Which recordings of its work a context keeps. Needs a GPU: without one every test is skipped and says so.
#include <cuda_runtime.h>
#include <gtest/gtest.h>

#include <array>
#include <filesystem>
#include <fstream>
#include <numeric>
#include <optional>

#include "gpu/here.h"
#include "gpu/spin_cuda.h"
#include "import/model_builder.h"
#include "tandem/custom_op.h"
#include "tandem/tandem.h"

namespace tandem {
namespace {

constexpr std::size_t kAddresses = 12, kKept = 8;

void cuda(cudaError_t status) { ASSERT_EQ(status, cudaSuccess) << cudaGetErrorString(status); }

// y = x. The host has a part in it when the step is given or recorded, none when a recording is replayed.
int given = 0;
void count_and_copy(const CustomCall& call) {
  ++given;
  EXPECT_EQ(cudaMemcpyAsync(call.results[0].data, call.operands[0].data, sizeof(float), cudaMemcpyDeviceToDevice,
                            static_cast<cudaStream_t>(call.stream)),
            cudaSuccess);
}

Engine counting() {
  register_op({.domain = "acme", .name = "Counted", .cuda = count_and_copy});
  testing::OnnxModel model;
  model.input("x", {"1"});
  model.node("Neg", {"x"}, {"a"}, "before");
  model.node("Counted", {"a"}, {"b"}, "counted").set_domain("acme");
  model.node("Neg", {"b"}, {"y"}, "behind");
  model.output("y");
  const std::string path = (std::filesystem::path(::testing::TempDir()) / "tandem_counted.onnx").string();
  std::ofstream(path, std::ios::binary) << model.proto.SerializeAsString();
  BuildOptions options;
  options.device = "cuda";
  return build(path, options);
}

class RecordingsOnGpu : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!testing::has_gpu()) GTEST_SKIP() << "this machine has no GPU";
    context.emplace(counting());
    cuda(cudaMalloc(&memory, 2 * kAddresses * 256));
    std::iota(values.begin(), values.end(), 1.0f);
    for (std::size_t i = 0; i < kAddresses; ++i) cuda(cudaMemcpy(in(i), &values[i], sizeof(float), cudaMemcpyDefault));
    cuda(cudaDeviceSynchronize());
    given = 0;
  }
  void TearDown() override {
    context.reset();
    cudaFree(memory);
  }
  std::byte* in(std::size_t i) const { return static_cast<std::byte*>(memory) + 512 * i; }
  std::byte* out(std::size_t i) const { return in(i) + 256; }
  void enqueue(std::size_t i, cudaStream_t stream = nullptr) {
    const void* const from[] = {in(i)};
    void* const to[] = {out(i)};
    context->enqueue(from, to, stream);
  }
  void expect_results() {
    for (std::size_t i = 0; i < kAddresses; ++i) {
      float got = 0;
      cuda(cudaMemcpy(&got, out(i), sizeof(float), cudaMemcpyDefault));
      EXPECT_EQ(got, values[i]) << i;
    }
  }
  std::optional<Context> context;
  std::array<float, kAddresses> values;
  void* memory = nullptr;
};

// Each address thrice: given, recorded, replayed. Then those used last are replayed at once, and the others are given and recorded anew.
TEST_F(RecordingsOnGpu, ThoseOfTheAddressesUsedLastAreKept) {
  for (int round = 0; round < 2; ++round) {
    for (std::size_t i = 0; i < kAddresses; ++i)
      for (const int more : {1, 1, 0}) {
        const int before = given;
        enqueue(i);
        EXPECT_EQ(given - before, more) << "address " << i << ", round " << round;
      }
    context->synchronize();
    expect_results();
    const int before = given;
    for (std::size_t i = kAddresses - kKept; i < kAddresses; ++i) enqueue(i);
    EXPECT_EQ(given, before) << "round " << round;
  }
  context->synchronize();
  expect_results();
}

// None of them has begun when it is evicted.
TEST_F(RecordingsOnGpu, OneThatGoesIsReplayedToItsEnd) {
  int* stop = nullptr;
  cudaStream_t stream = nullptr;
  cuda(cudaHostAlloc(reinterpret_cast<void**>(&stop), sizeof(int), cudaHostAllocMapped));
  *stop = 0;
  cuda(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
  enqueue(0, stream);  // what is loaded and allocated once is
  cuda(cudaStreamSynchronize(stream));
  for (std::size_t i = 0; i < kAddresses; ++i) cuda(cudaMemset(out(i), 0, sizeof(float)));
  cuda(cudaDeviceSynchronize());
  given = 0;
  testing::launch_spin(stop, 5, stream);
  for (std::size_t i = 1; i < kAddresses; ++i)
    for (int call = 0; call < 3; ++call) enqueue(i, stream);
  enqueue(0, stream);
  EXPECT_EQ(cudaStreamQuery(stream), cudaErrorNotReady) << "an eviction waited";
  EXPECT_EQ(given, static_cast<int>(2 * (kAddresses - 1) + 1));
  *stop = 1;
  cuda(cudaStreamSynchronize(stream));
  expect_results();
  cuda(cudaStreamDestroy(stream));
  cuda(cudaFreeHost(stop));
}

}  // namespace
}  // namespace tandem
