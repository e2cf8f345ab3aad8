// Engines whose weights have not all room on their GPU: the same bits as with all of them there, started one by one, recorded, replayed, in
// graphs of the caller's; and the memory that they take. Needs a GPU: without one every test is skipped and says so.
#include <cuda_runtime.h>
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <thread>

#include "gpu/chain.h"
#include "gpu/here.h"
#include "support/thrown.h"
#include "tandem/tandem.h"

namespace tandem {
namespace {

using testing::chain;
using testing::model_path;
using testing::random_array;
using testing::thrown;
using Bytes = std::vector<std::byte>;

void cuda(cudaError_t status) { ASSERT_EQ(status, cudaSuccess) << cudaGetErrorString(status); }

class WeightBudgetOnGpu : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!testing::has_gpu()) GTEST_SKIP() << "this machine has no GPU";
  }
};

// All outputs of several calls with changing inputs: the first is run, the second recorded, the others replayed.
std::vector<Bytes> outputs_of(const Engine& engine, const ContextOptions& options, int calls = 6) {
  Context context(engine, options);
  std::vector<Bytes> all;
  for (int call = 0; call < calls; ++call) {
    const Arrays arrays = engine.random_inputs(static_cast<unsigned>(call % 3));
    std::vector<const void*> inputs;
    std::vector<void*> outputs;
    const std::vector<Port> in = engine.inputs(), out = engine.outputs();
    for (std::size_t i = 0; i < in.size(); ++i) {
      context.set_input_shape(i, arrays.at(in[i].name).shape);
      inputs.push_back(arrays.at(in[i].name).data.get());
    }
    const std::size_t first = all.size();
    for (std::size_t i = 0; i < out.size(); ++i)
      all.emplace_back(Array{out[i].dtype, context.output_shape(i), nullptr}.size_bytes(), std::byte{0x5a});
    for (std::size_t i = 0; i < out.size(); ++i) outputs.push_back(all[first + i].data());
    context.run(inputs, outputs);
  }
  return all;
}

std::vector<std::size_t> budgets_of(const Engine& engine) {
  const WeightMemory all = engine.weight_memory();
  std::vector<std::size_t> budgets;
  for (const std::size_t part : {0, 10, 50, 90, 100}) budgets.push_back(all.least_budget + (all.bytes - all.least_budget) * part / 100);
  return budgets;
}

void expect_same_bits(const Engine& engine, bool dependent = true) {
  const std::vector<Bytes> resident = outputs_of(engine, {.dependent_launch = dependent});
  for (const std::size_t budget : budgets_of(engine)) {
    const WeightMemory memory = engine.weight_memory(budget);
    EXPECT_LE(memory.bytes - memory.streamed_bytes + memory.ring_bytes, budget);
    const std::vector<Bytes> streamed = outputs_of(engine, {.dependent_launch = dependent, .weight_budget_bytes = budget});
    ASSERT_EQ(streamed.size(), resident.size());
    for (std::size_t i = 0; i < resident.size(); ++i) EXPECT_TRUE(streamed[i] == resident[i]) << "output " << i << ", budget " << budget;
  }
}

TEST_F(WeightBudgetOnGpu, SameBitsOfRecordedModels) {
  for (const char* name : {"mlp_dynamo", "bert_dynamo", "gpt2_dynamo", "llama_dynamo", "llama_dynamo_f16"}) {
    SCOPED_TRACE(name);
    BuildOptions options;
    options.device = "cuda";
    expect_same_bits(build(model_path(name), options));
  }
}

TEST_F(WeightBudgetOnGpu, SameBitsOfQuantisedWeights) {
  for (const char* type : {"int8", "int4"}) {
    SCOPED_TRACE(type);
    BuildOptions options;
    options.device = "cuda";
    options.weights = type;
    expect_same_bits(build(model_path("llama_dynamo_f16"), options));
  }
}

TEST_F(WeightBudgetOnGpu, SameBitsOfRowsWithWeightsByColumns) {
  const Engine engine = chain(16, 2048, 1, DType::bf16);
  for (const bool dependent : {true, false}) expect_same_bits(engine, dependent);
}

TEST_F(WeightBudgetOnGpu, SameBitsOfLargeProducts) { expect_same_bits(chain(12, 2048, 512, DType::bf16)); }

std::size_t free_memory() {
  std::size_t free = 0, total = 0;
  cudaMemGetInfo(&free, &total);
  return free;
}

// What is taken beside: activations, workspace and the inputs of runs, of libraries' handles, and of graphs.
TEST_F(WeightBudgetOnGpu, MemoryStaysWithinTheBudget) {
  constexpr std::size_t kBeside = std::size_t{96} << 20;
  const Engine engine = chain(24, 4096, 1, DType::bf16);  // 805 MB
  outputs_of(chain(2, 4096, 1, DType::bf16), {}, 2);      // libraries are loaded
  const std::size_t before = free_memory();
  for (const std::size_t budget : {std::size_t{100} << 20, std::size_t{300} << 20, std::size_t{600} << 20}) {
    Context context(engine, {.weight_budget_bytes = budget});
    const Array x = random_array(DType::bf16, {1, 4096}, 7, 1);
    Bytes y(x.size_bytes());
    const void* const inputs[] = {x.data.get()};
    void* const outputs[] = {y.data()};
    for (int call = 0; call < 10; ++call) context.run(inputs, outputs);
    EXPECT_LT(before - free_memory(), budget + kBeside) << "budget " << budget;
    EXPECT_GT(before - free_memory(), budget / 2);
  }
}

// Of weights that kernels pack only a part is there a second time.
TEST_F(WeightBudgetOnGpu, MemoryStaysNearThatOfTheWeightsWhileTheyAreLoaded) {
  constexpr std::size_t kBeside = std::size_t{96} << 20;
  const Engine engine = chain(24, 4096, 1, DType::bf16);  // 805 MB
  const std::size_t weights = engine.weight_memory().bytes;
  outputs_of(chain(2, 4096, 1, DType::bf16), {}, 2);
  const std::size_t before = free_memory();
  std::atomic<bool> loaded{false};
  std::size_t least = before;
  std::thread watcher([&] {
    while (!loaded) {
      least = std::min(least, free_memory());
      std::this_thread::sleep_for(std::chrono::microseconds(200));
    }
  });
  const Context context(engine);
  loaded = true;
  watcher.join();
  EXPECT_GT(before - least, weights);
  EXPECT_LT(before - least, weights + weights / 4 + kBeside);
}

// Where the rest of the GPU is taken an engine is refused with the way out, which works.
TEST_F(WeightBudgetOnGpu, AnEngineLargerThanWhatIsFree) {
  const Engine engine = chain(32, 4096, 1, DType::bf16);  // 1.07 GB
  outputs_of(chain(2, 4096, 1, DType::bf16), {}, 2);
  const std::size_t free = free_memory(), left = std::size_t{640} << 20;
  void* rest = nullptr;
  cuda(cudaMalloc(&rest, free - left));
  const Error error = thrown([&] { Context context(engine); });
  EXPECT_EQ(error.code(), ErrorCode::out_of_memory);
  EXPECT_NE(std::string(error.what()).find("weight_budget_bytes"), std::string::npos) << error.what();
  const std::size_t budget = engine.automatic_weight_budget();
  EXPECT_LT(budget, engine.weight_memory().bytes);
  const std::vector<Bytes> streamed = outputs_of(engine, {.weight_budget_bytes = budget});
  cuda(cudaFree(rest));
  EXPECT_TRUE(streamed == outputs_of(engine, {}));
}

// Copies become part of the caller's graph, which keeps ring and weights when context and engine are gone.
TEST_F(WeightBudgetOnGpu, AGraphOfTheCallersOutlivesTheContext) {
  auto engine = std::make_unique<Engine>(chain(8, 1024, 1, DType::bf16));
  const std::size_t budget = engine->weight_memory().least_budget * 2;
  const Array x = random_array(DType::bf16, {1, 1024}, 3, 1);
  Bytes wanted(x.size_bytes()), got(x.size_bytes());
  {
    Context resident(*engine);
    const void* const inputs[] = {x.data.get()};
    void* const outputs[] = {wanted.data()};
    resident.run(inputs, outputs);
  }
  void *in = nullptr, *out = nullptr;
  cuda(cudaMalloc(&in, x.size_bytes()));
  cuda(cudaMalloc(&out, x.size_bytes()));
  cuda(cudaMemcpy(in, x.data.get(), x.size_bytes(), cudaMemcpyDefault));
  cudaStream_t stream = nullptr;
  cuda(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
  cudaGraph_t graph = nullptr;
  cudaGraphExec_t exec = nullptr;
  {
    Context context(*engine, {.weight_budget_bytes = budget});
    context.prepare();
    const void* const inputs[] = {in};
    void* const outputs[] = {out};
    cuda(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
    context.enqueue(inputs, outputs, stream);
    Bytes beside(x.size_bytes());  // while the recording goes on
    const void* const host_inputs[] = {x.data.get()};
    void* const host_outputs[] = {beside.data()};
    context.run(host_inputs, host_outputs);
    EXPECT_TRUE(beside == wanted);
    cuda(cudaStreamEndCapture(stream, &graph));
    cuda(cudaGraphInstantiate(&exec, graph, 0));
  }
  engine.reset();
  for (int launch = 0; launch < 3; ++launch) {
    cuda(cudaMemset(out, 0x5a, x.size_bytes()));
    cuda(cudaDeviceSynchronize());
    cuda(cudaGraphLaunch(exec, stream));
    cuda(cudaStreamSynchronize(stream));
    cuda(cudaMemcpy(got.data(), out, got.size(), cudaMemcpyDefault));
    EXPECT_TRUE(got == wanted);
  }
  cuda(cudaGraphExecDestroy(exec));
  cuda(cudaGraphDestroy(graph));
  cuda(cudaStreamDestroy(stream));
  cuda(cudaFree(in));
  cuda(cudaFree(out));
}

// Each has a ring of its own; both share what is loaded.
TEST_F(WeightBudgetOnGpu, ContextsBesideOneAnother) {
  const Engine engine = chain(8, 1024, 64, DType::bf16);
  const std::size_t budget = engine.weight_memory().least_budget * 3;
  const std::vector<Bytes> wanted = outputs_of(engine, {});
  std::vector<std::vector<Bytes>> got(3);
  std::vector<std::thread> threads;
  for (auto& one : got) threads.emplace_back([&] { one = outputs_of(engine, {.weight_budget_bytes = budget}); });
  for (std::thread& thread : threads) thread.join();
  for (const auto& one : got) EXPECT_TRUE(one == wanted);
}

TEST_F(WeightBudgetOnGpu, EachRankStreamsItsOwnShards) {
  if (int count = 0; cudaGetDeviceCount(&count) != cudaSuccess || count < 2)
    GTEST_SKIP() << "2 GPUs are needed, this machine has " << count;
  BuildOptions options;
  options.device = "cuda";
  options.mesh = "tp=2";
  const Engine engine = build(model_path("gpt2_dynamo"), options);
  RankArrays inputs;
  for (const auto& [name, array] : engine.random_inputs(2)) inputs[name] = {array};
  Model resident(engine);
  const RankArrays wanted = resident.run(inputs);
  for (const std::size_t budget : budgets_of(engine)) {
    Model streamed(engine, {.weight_budget_bytes = budget});
    for (int call = 0; call < 3; ++call) {
      const RankArrays got = streamed.run(inputs);
      for (const auto& [name, list] : wanted)
        EXPECT_EQ(std::memcmp(got.at(name)[0].data.get(), list[0].data.get(), list[0].size_bytes()), 0) << name << ", budget " << budget;
    }
  }
}

TEST_F(WeightBudgetOnGpu, TooSmallABudgetNamesTheLeast) {
  const Engine engine = chain(4, 1024, 1, DType::bf16);
  const std::size_t least = engine.weight_memory().least_budget;
  const Error error = thrown([&] { Context context(engine, {.weight_budget_bytes = least - 1}); });
  EXPECT_EQ(error.code(), ErrorCode::invalid_argument);
  EXPECT_NE(std::string(error.what()).find(fmt::format("needs {} at once", least)), std::string::npos) << error.what();
}

}  // namespace
}  // namespace tandem
