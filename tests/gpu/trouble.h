// What the tests of trouble on a GPU share: a small model, memory, flags, children.
#pragma once

#include <cuda_runtime.h>
#include <gtest/gtest.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <new>
#include <string>
#include <vector>

#include "gpu/here.h"
#include "gpu/spin_cuda.h"
#include "support/thrown.h"
#include "tandem/tandem.h"

namespace tandem::testing {

using Seconds = std::chrono::duration<double>;

// The longest that a kernel of a test may keep a GPU busy.
inline constexpr double kLongestSpin = 20;

inline void cuda(cudaError_t status) { ASSERT_EQ(status, cudaSuccess) << cudaGetErrorString(status); }

inline Engine engine_of(const std::string& model, BuildOptions options = {}) {
  const char* folder = std::getenv("TANDEM_TEST_MODELS");
  if (options.device.empty()) options.device = "cuda";
  return build(std::string(folder ? folder : TANDEM_MODELS) + "/" + model + ".onnx", options);
}

// Not named *DeathTest*: tests before it may have used the GPU, for the child is a process started anew.
class GpuTrouble : public ::testing::Test {
 protected:
  void SetUp() override {
    GTEST_FLAG_SET(death_test_style, "threadsafe");
    if (!testing::has_gpu()) GTEST_SKIP() << "this machine has no GPU";
  }
};

// The MLP of the recorded models with arrays of the host.
struct Mlp {
  explicit Mlp(double deadline = 30, std::shared_ptr<DeviceAllocator> allocator = nullptr, const Engine& of = engine_of("mlp_dynamo"))
      : engine(of), context(engine, {.step_deadline_s = deadline, .allocator = std::move(allocator)}) {
    context.set_input_shape(0, input.shape);
    const Array wanted_array = Model(engine_of("mlp_dynamo", {.device = "cpu"})).run(inputs).begin()->second.at(0);
    wanted.resize(wanted_array.size_bytes() / sizeof(float));
    std::memcpy(wanted.data(), wanted_array.data.get(), wanted_array.size_bytes());
  }
  void run(Context& with) {
    std::vector<float> out(wanted.size(), -1.0f);
    const void* const from[] = {input.data.get()};
    void* const to[] = {out.data()};
    with.run(from, to);
    for (std::size_t i = 0; i < out.size(); ++i) ASSERT_NEAR(out[i], wanted[i], 1e-4) << i;
  }
  Engine engine;
  Arrays inputs = engine.random_inputs(1);
  Array input = inputs.begin()->second;
  std::vector<float> wanted;
  Context context;
};

// Memory of the GPU.
struct Buffer {
  explicit Buffer(std::size_t bytes) { cuda(cudaMalloc(&data, bytes)); }
  ~Buffer() { cudaFree(data); }
  Buffer(const Buffer&) = delete;
  void* data = nullptr;
};

// A word that host and GPU share.
struct Flag {
  Flag() {
    void* memory = nullptr;
    cuda(cudaHostAlloc(&memory, sizeof(int), cudaHostAllocMapped));
    word = new (memory) int(0);
  }
  volatile int* word = nullptr;
};

// A folder with a file of this name that is no library.
inline std::string folder_with_broken(const std::string& soname) {
  const std::filesystem::path folder = std::filesystem::path(::testing::TempDir()) / ("tandem_trouble_" + soname);
  std::filesystem::create_directories(folder);
  std::ofstream(folder / soname) << "no library\n";
  return folder.string();
}

// Says what happened on stderr, which the test reads, and ends the process as any program ends.
[[noreturn]] inline void end_with(const std::string& text) {
  std::fprintf(stderr, "%s\n", text.c_str());
  std::exit(0);
}

}  // namespace tandem::testing
