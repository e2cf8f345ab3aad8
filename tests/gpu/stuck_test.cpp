// Work of a GPU that does not end, and memory that such work, or a caller's graph, still needs: nothing waits for ever, nothing is freed
// too early, and all of it comes back.
#include <atomic>
#include <filesystem>
#include <fstream>
#include <functional>
#include <map>
#include <thread>

#include "gpu/trouble.h"
#include "import/model_builder.h"
#include "tandem/custom_op.h"
#include "tandem/gpu.h"

namespace tandem {
namespace {

using namespace testing;

class Counting final : public DeviceAllocator {
 public:
  void* allocate(std::size_t bytes, std::size_t, void*) override {
    void* memory = nullptr;
    if (cudaMalloc(&memory, bytes) != cudaSuccess) return nullptr;
    in_use += bytes;
    sizes_[memory] = bytes;
    return memory;
  }
  void release(void* memory, void*) noexcept override {
    cudaFree(memory);
    in_use -= sizes_[memory];
  }
  std::atomic<std::size_t> in_use{0};

 private:
  std::map<void*, std::size_t> sizes_;
};

cudaStream_t new_stream() {
  cudaStream_t stream = nullptr;
  cuda(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
  return stream;
}

// Until it is so; what comes back comes back a little later.
void expect_soon(const std::function<bool()>& is_so) {
  for (int attempt = 0; attempt < 250; ++attempt) {
    if (is_so()) return;
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
  ADD_FAILURE() << "not so after 5 s";
}

// False while the GPU is lost.
template <typename Run>
bool runs(const Run& run) {
  try {
    run();
    return true;
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::timeout) << error.what();
    return false;
  }
}

// The context of the MLP is given work behind a kernel that does not end, and waits for it in vain.
struct Stuck {
  explicit Stuck(Mlp& mlp, double seconds = kLongestSpin)
      : in(new Buffer(mlp.input.size_bytes())), out(new Buffer(mlp.wanted.size() * sizeof(float))) {
    mlp.run(mlp.context);
    launch_spin(stop.word, seconds, stream);
    const void* const from[] = {in->data};
    void* const to[] = {out->data};
    const auto begin = std::chrono::steady_clock::now();
    mlp.context.enqueue(from, to, stream);  // gives the work and returns
    EXPECT_LT(Seconds(std::chrono::steady_clock::now() - begin).count(), 10);
    said = thrown([&] { mlp.run(mlp.context); }).what();
  }
  void end() {
    *stop.word = 1;
    cuda(cudaStreamSynchronize(stream));
  }
  Flag stop;
  cudaStream_t stream = new_stream();
  Buffer *in, *out;  // freeing them would wait
  std::string said;
};

TEST_F(GpuTrouble, AKernelThatEndsTooLate) {
  Mlp mlp(1);
  const auto begin = std::chrono::steady_clock::now();
  Stuck stuck(mlp);
  EXPECT_NE(stuck.said.find("did not finish within 1.0 s"), std::string::npos) << stuck.said;
  const Error again = thrown([&] { mlp.run(mlp.context); });
  EXPECT_EQ(again.code(), ErrorCode::timeout) << again.what();
  EXPECT_NE(again.message().find("GPU 0 is lost to this process until that work ends"), std::string::npos) << again.what();
  EXPECT_EQ(thrown([&] { Context another(mlp.engine); }).code(), ErrorCode::timeout);
  EXPECT_TRUE(gpu_lost());
  EXPECT_EQ(cudaStreamQuery(stuck.stream), cudaErrorNotReady)
      << "it took " << Seconds(std::chrono::steady_clock::now() - begin).count() << " s";
  stuck.end();  // the work goes on, and so does everything else
  expect_soon([&] { return runs([&] { mlp.run(mlp.context); }); });
  EXPECT_FALSE(gpu_lost());
  Mlp well;
  well.run(well.context);
}

TEST_F(GpuTrouble, WhatAKernelThatDoesNotEndMayUseComesBackWhenItEnds) {
  const auto memory = std::make_shared<Counting>();
  Mlp well;
  well.run(well.context);
  auto mlp = std::make_unique<Mlp>(1, memory);
  Stuck stuck(*mlp);
  mlp.reset();
  EXPECT_EQ(cudaStreamQuery(stuck.stream), cudaErrorNotReady) << "the context waited for the kernel";
  EXPECT_GT(memory->in_use, 0u);
  stuck.end();
  expect_soon([&] { return runs([&] { well.run(well.context); }); });
  EXPECT_EQ(memory->in_use, 0u);
}

TEST_F(GpuTrouble, AKernelThatNeverEndsHoldsUpNothing) {
  constexpr double kSpin = 60;  // the end of the process ends the kernel too
  const auto life = [] {
    auto mlp = std::make_unique<Mlp>(1);
    const Stuck stuck(*mlp, kSpin);
    mlp.reset();  // context and engine go while the kernel runs
    std::fprintf(stderr, "%s%s\n",
                 cudaStreamQuery(stuck.stream) == cudaErrorNotReady ? "while it runs: " : "only after it: ", stuck.said.c_str());
    std::fflush(nullptr);
    std::quick_exit(gpu_lost() ? 0 : 1);
  };
  const auto begin = std::chrono::steady_clock::now();
  EXPECT_EXIT(life(), ::testing::ExitedWithCode(0), "while it runs: .*did not finish within 1\\.0 s");
  EXPECT_LT(Seconds(std::chrono::steady_clock::now() - begin).count(), kSpin);
}

// Work of a context behind a kernel that does not end, for which nobody has waited yet; so the GPU is not lost.
struct Behind {
  explicit Behind(Mlp& mlp, double seconds) : in(new Buffer(mlp.input.size_bytes())), out(new Buffer(mlp.wanted.size() * sizeof(float))) {
    mlp.run(mlp.context);
    launch_spin(stop.word, seconds, stream);
    const void* const from[] = {in->data};
    void* const to[] = {out->data};
    mlp.context.enqueue(from, to, stream);
  }
  bool goes_on() const { return cudaStreamQuery(stream) == cudaErrorNotReady; }
  Flag stop;
  cudaStream_t stream = new_stream();
  Buffer *in, *out;  // freeing them would wait
};

TEST_F(GpuTrouble, AContextGoesBesideAKernelThatNeverEndsInAnother) {
  constexpr double kSpin = 60;
  const auto life = [] {
    Mlp mlp;
    auto another = std::make_unique<Mlp>();
    another->run(another->context);
    const Behind behind(mlp, kSpin);
    another.reset();  // context and engine
    std::fprintf(stderr, "%s, the GPU is %s\n", behind.goes_on() ? "while it runs" : "only after it", gpu_lost() ? "lost" : "not lost");
    std::fflush(nullptr);
    std::quick_exit(0);
  };
  const auto begin = std::chrono::steady_clock::now();
  EXPECT_EXIT(life(), ::testing::ExitedWithCode(0), "while it runs, the GPU is not lost");
  EXPECT_LT(Seconds(std::chrono::steady_clock::now() - begin).count(), kSpin);
}

TEST_F(GpuTrouble, MemoryThatCouldNotBeGivenBackIsOnceTheWorkHasEnded) {
  constexpr std::size_t kBytes = std::size_t{256} << 20;
  const auto free_memory = [] {
    std::size_t free = 0, total = 0;
    cuda(cudaMemGetInfo(&free, &total));
    return free;
  };
  Mlp mlp, well;
  well.run(well.context);
  std::shared_ptr<std::byte> memory = Gpu(0).allocate(kBytes);
  const std::size_t before = free_memory();
  const Behind behind(mlp, kLongestSpin);
  const auto begin = std::chrono::steady_clock::now();
  memory.reset();
  EXPECT_LT(Seconds(std::chrono::steady_clock::now() - begin).count(), 10);
  EXPECT_TRUE(behind.goes_on()) << "it was waited for";
  well.run(well.context);  // the GPU is not lost
  EXPECT_TRUE(behind.goes_on());
  *behind.stop.word = 1;
  cuda(cudaStreamSynchronize(behind.stream));
  expect_soon([&] {
    well.run(well.context);
    return free_memory() > before + kBytes / 2;
  });
}

// y = x, behind a spinning kernel.
volatile int* stop_of_spin = nullptr;
void spin_on_gpu(const CustomCall& call) {
  const auto stream = static_cast<cudaStream_t>(call.stream);
  launch_spin(stop_of_spin, kLongestSpin, stream);
  EXPECT_EQ(cudaMemcpyAsync(call.results[0].data, call.operands[0].data, sizeof(float), cudaMemcpyDeviceToDevice, stream), cudaSuccess);
}

TEST_F(GpuTrouble, TheStepThatDoesNotEndIsNamed) {
  const Flag stop;
  stop_of_spin = stop.word;
  register_op({.domain = "acme", .name = "Spin", .cuda = spin_on_gpu});
  OnnxModel model;
  model.input("x", {"1"});
  model.node("Neg", {"x"}, {"a"}, "before");
  model.node("Spin", {"a"}, {"b"}, "stuck").set_domain("acme");
  model.node("Neg", {"b"}, {"y"}, "behind");
  model.output("y");
  const std::string path = (std::filesystem::path(::testing::TempDir()) / "tandem_spin.onnx").string();
  std::ofstream(path, std::ios::binary) << model.proto.SerializeAsString();
  BuildOptions options;
  options.device = "cuda";
  Context context(build(path, options), {.step_deadline_s = 1});
  const float x = 3;
  float y = 0;
  const void* const from[] = {&x};
  void* const to[] = {&y};
  const auto run = [&] { context.run(from, to); };
  const auto end = [&] {
    *stop.word = 1;
    cuda(cudaDeviceSynchronize());
  };
  const Error first = thrown(run);  // started step by step
  EXPECT_EQ(first.code(), ErrorCode::timeout) << first.what();
  EXPECT_EQ(first.node(), "Custom \"stuck\"") << first.what();
  EXPECT_NE(first.message().find("did not finish within 1.0 s, in step 1 of 3"), std::string::npos) << first.what();
  end();
  expect_soon([&] { return runs(run); });
  run();  // recorded by now
  EXPECT_EQ(y, x);
  *stop.word = 0;
  const Error replayed = thrown(run);
  EXPECT_NE(replayed.message().find("did not finish within 1.0 s, in a replay of 3 steps"), std::string::npos) << replayed.what();
  end();
  expect_soon([&] { return runs(run); });
  EXPECT_EQ(y, x);
}

// A context that goes leaves its memory to the caller's graph; that gives it back to the context's allocator.
TEST_F(GpuTrouble, MemoryGoesBackWhenACallersGraphIsGone) {
  const auto memory = std::make_shared<Counting>();
  const cudaStream_t stream = new_stream();
  Mlp well;
  Buffer in(well.input.size_bytes()), out(well.wanted.size() * sizeof(float));
  const void* const from[] = {in.data};
  void* const to[] = {out.data};
  for (int round = 0; round < 3; ++round) {
    cudaGraph_t graph = nullptr;
    cudaGraphExec_t exec = nullptr;
    {
      Mlp mlp(30, memory);
      mlp.context.prepare();
      cuda(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
      mlp.context.enqueue(from, to, stream);
      cuda(cudaStreamEndCapture(stream, &graph));
    }
    cuda(cudaGraphInstantiate(&exec, graph, 0));
    cuda(cudaGraphDestroy(graph));
    well.run(well.context);
    EXPECT_GT(memory->in_use, 0u);
    cuda(cudaGraphLaunch(exec, stream));
    cuda(cudaStreamSynchronize(stream));
    cuda(cudaGraphExecDestroy(exec));
    expect_soon([&] {
      well.run(well.context);
      return memory->in_use == 0;
    });
  }
  cuda(cudaStreamDestroy(stream));
}

}  // namespace
}  // namespace tandem
