// What goes wrong around a context on a GPU: what is said, and that nothing waits for ever. What breaks a process runs in one of its own.
#include <cuda_runtime.h>
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <thread>

#include "gpu/spin_cuda.h"
#include "support/thrown.h"
#include "tandem/tandem.h"

namespace tandem {
namespace {

namespace fs = std::filesystem;
using testing::thrown;
using Seconds = std::chrono::duration<double>;

void cuda(cudaError_t status) { ASSERT_EQ(status, cudaSuccess) << cudaGetErrorString(status); }

Engine engine_of(const std::string& model, BuildOptions options = {}) {
  const char* folder = std::getenv("TANDEM_TEST_MODELS");
  if (options.device.empty()) options.device = "cuda";
  return build(std::string(folder ? folder : TANDEM_MODELS) + "/" + model + ".onnx", options);
}

// Not named *DeathTest*: tests before it may have used the GPU, for the child is a process started anew.
class GpuTrouble : public ::testing::Test {
 protected:
  void SetUp() override {
    GTEST_FLAG_SET(death_test_style, "threadsafe");
    int count = 0;
    if (cudaGetDeviceCount(&count) != cudaSuccess || count == 0) GTEST_SKIP() << "this machine has no GPU";
  }
};

// The MLP of the recorded models with arrays of the host.
struct Mlp {
  explicit Mlp(double deadline = 30, const Engine& of = engine_of("mlp_dynamo")) : engine(of), context(engine, {.step_deadline_s = deadline}) {
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

TEST_F(GpuTrouble, AnEngineForAnotherGpuNamesBoth) {
  const Engine engine = engine_of("mlp_dynamo", {.device = "cuda", .target = "sm_70"});
  const Error error = thrown([&] { Context context(engine); });
  EXPECT_EQ(error.code(), ErrorCode::mismatch);
  EXPECT_NE(error.message().find("built for sm_70, this is "), std::string::npos) << error.what();
  cudaDeviceProp properties;
  cuda(cudaGetDeviceProperties(&properties, 0));
  const std::string here = "sm_" + std::to_string(properties.major) + std::to_string(properties.minor);
  EXPECT_NE(error.message().find("(" + here + ")"), std::string::npos) << error.what();
  Mlp fits(30, engine_of("mlp_dynamo", {.device = "cuda", .target = here}));
  fits.run(fits.context);
}

TEST_F(GpuTrouble, AStreamOfAnotherGpu) {
  int count = 0;
  cuda(cudaGetDeviceCount(&count));
  if (count < 2) GTEST_SKIP() << "this machine has one GPU";
  Mlp mlp;
  Buffer in(mlp.input.size_bytes()), out(mlp.wanted.size() * sizeof(float));
  cudaStream_t stream = nullptr;
  cuda(cudaSetDevice(1));
  cuda(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
  cuda(cudaSetDevice(0));
  const void* const from[] = {in.data};
  void* const to[] = {out.data};
  const Error error = thrown([&] { mlp.context.enqueue(from, to, stream); });
  EXPECT_EQ(error.code(), ErrorCode::invalid_argument);
  EXPECT_NE(error.message().find("GPU 1"), std::string::npos) << error.what();
  mlp.run(mlp.context);
}

// The strictest mode forbids every thread what may allocate or wait, and breaks the recording where it happens.
TEST_F(GpuTrouble, ARecordingOfAnotherStreamIsNotDisturbed) {
  for (const cudaStreamCaptureMode mode : {cudaStreamCaptureModeGlobal, cudaStreamCaptureModeThreadLocal}) {
    cudaStream_t other = nullptr;
    cudaGraph_t graph = nullptr;
    cuda(cudaStreamCreateWithFlags(&other, cudaStreamNonBlocking));
    cuda(cudaStreamBeginCapture(other, mode));
    {
      Mlp mlp;
      mlp.context.prepare();
      for (int call = 0; call < 3; ++call) mlp.run(mlp.context);
      std::thread([] {
        Mlp in_thread;
        in_thread.run(in_thread.context);
      }).join();
    }
    cuda(cudaStreamEndCapture(other, &graph));
    cuda(cudaGraphDestroy(graph));
    cuda(cudaStreamDestroy(other));
  }
}

TEST_F(GpuTrouble, ARecordedStreamNeedsPreparedShapes) {
  Mlp mlp;
  Buffer in(mlp.input.size_bytes()), out(mlp.wanted.size() * sizeof(float));
  cudaStream_t stream = nullptr;
  cudaGraph_t graph = nullptr;
  cuda(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
  cuda(cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal));
  const void* const from[] = {in.data};
  void* const to[] = {out.data};
  const Error error = thrown([&] { mlp.context.enqueue(from, to, stream); });
  EXPECT_EQ(error.code(), ErrorCode::invalid_argument);
  EXPECT_NE(error.message().find("call prepare() before"), std::string::npos) << error.what();
  mlp.context.prepare();  // is possible while the stream is recorded
  mlp.context.enqueue(from, to, stream);
  cuda(cudaStreamEndCapture(stream, &graph));
  std::size_t nodes = 0;
  cuda(cudaGraphGetNodes(graph, nullptr, &nodes));
  EXPECT_GT(nodes, 0u);
  cuda(cudaGraphDestroy(graph));
  cuda(cudaStreamDestroy(stream));
  mlp.run(mlp.context);
}

TEST_F(GpuTrouble, MemoryGoesBackWhenACallersGraphIsGone) {
  cudaStream_t stream = nullptr;
  cuda(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
  std::size_t free_before = 0, free_after = 0, total = 0;
  for (int round = 0; round < 6; ++round) {
    if (round == 1) cuda(cudaMemGetInfo(&free_before, &total));
    constexpr std::int64_t kRows = 65536;
    Mlp mlp;
    const auto columns = mlp.wanted.size() / static_cast<std::size_t>(mlp.input.shape[0]);
    mlp.context.set_input_shape(0, {kRows, mlp.input.shape[1]});
    ASSERT_GT(mlp.context.device_memory_bytes(), std::size_t{8} << 20);
    Buffer in(static_cast<std::size_t>(kRows * mlp.input.shape[1]) * sizeof(float)), out(kRows * columns * sizeof(float));
    mlp.context.prepare();
    const void* const from[] = {in.data};
    void* const to[] = {out.data};
    cudaGraph_t graph = nullptr;
    cudaGraphExec_t exec = nullptr;
    cuda(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
    mlp.context.enqueue(from, to, stream);
    cuda(cudaStreamEndCapture(stream, &graph));
    cuda(cudaGraphInstantiate(&exec, graph, 0));
    cuda(cudaGraphDestroy(graph));
    cuda(cudaGraphExecDestroy(exec));
  }
  Mlp last;
  last.run(last.context);
  cuda(cudaMemGetInfo(&free_after, &total));
  EXPECT_LT(free_before, free_after + (std::size_t{24} << 20));
  cuda(cudaStreamDestroy(stream));
}

TEST_F(GpuTrouble, AKernelThatEndsTooLate) {
  Mlp mlp(1);
  mlp.run(mlp.context);
  const Flag stop;
  cudaStream_t stream = nullptr;
  cuda(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
  Buffer in(mlp.input.size_bytes()), out(mlp.wanted.size() * sizeof(float));
  testing::launch_spin(stop.word, 60, stream);
  const void* const from[] = {in.data};
  void* const to[] = {out.data};
  mlp.context.enqueue(from, to, stream);  // gives the work and returns
  const auto begin = std::chrono::steady_clock::now();
  const Error late = thrown([&] { mlp.run(mlp.context); });
  EXPECT_EQ(late.code(), ErrorCode::timeout) << late.what();
  const Error again = thrown([&] { mlp.run(mlp.context); });
  EXPECT_EQ(again.code(), ErrorCode::timeout) << again.what();
  EXPECT_NE(again.message().find("GPU 0 is lost to this process until that work ends"), std::string::npos) << again.what();
  {
    const Error other = thrown([&] { Context another(mlp.engine); });
    EXPECT_EQ(other.code(), ErrorCode::timeout) << other.what();
  }
  EXPECT_LT(Seconds(std::chrono::steady_clock::now() - begin).count(), 30);
  *stop.word = 1;  // the work goes on, and so does everything else
  cuda(cudaStreamSynchronize(stream));
  Mlp well;
  for (int attempt = 0; attempt < 100; ++attempt) {
    try {
      well.run(mlp.context);
      break;
    } catch (const Error& error) {
      ASSERT_LT(attempt, 99) << error.what();
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
    }
  }
  well.run(well.context);
  cuda(cudaStreamDestroy(stream));
}

// Says what happened on stderr, which the test reads, and ends the process as any program ends.
[[noreturn]] void end_with(const std::string& text) {
  std::fprintf(stderr, "%s\n", text.c_str());
  std::exit(0);
}

TEST_F(GpuTrouble, AKernelThatNeverEndsHoldsUpNothing) {
  const auto life = [] {
    std::string said;
    {
      Mlp mlp(1);
      mlp.run(mlp.context);
      const Flag stop;
      cudaStream_t stream = nullptr;
      cuda(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
      Buffer* const in = new Buffer(mlp.input.size_bytes());  // freeing them would wait
      Buffer* const out = new Buffer(mlp.wanted.size() * sizeof(float));
      testing::launch_spin(stop.word, 300, stream);
      const void* const from[] = {in->data};
      void* const to[] = {out->data};
      mlp.context.enqueue(from, to, stream);
      said = thrown([&] { mlp.run(mlp.context); }).what();
    }  // context and engine go while the kernel runs
    end_with("ended after: " + said);
  };
  const auto begin = std::chrono::steady_clock::now();
  EXPECT_EXIT(life(), ::testing::ExitedWithCode(0), "ended after: .*did not finish within 1\\.0 s");
  EXPECT_LT(Seconds(std::chrono::steady_clock::now() - begin).count(), 120);
}

TEST_F(GpuTrouble, AFreedBufferEndsTheGpusContextAndSaysSo) {
  const auto life = [] {
    std::string first, second, third;
    {
      Mlp mlp;
      mlp.run(mlp.context);
      void* gone = nullptr;
      cuda(cudaMalloc(&gone, std::size_t{256} << 20));
      cuda(cudaFree(gone));
      Buffer out(mlp.wanted.size() * sizeof(float));
      const void* const from[] = {gone};
      void* const to[] = {out.data};
      first = thrown([&] {
        mlp.context.enqueue(from, to);
        mlp.context.synchronize();
      }).what();
      second = thrown([&] { mlp.run(mlp.context); }).what();
      third = thrown([&] { Context another(mlp.engine); }).what();
    }
    end_with("first: " + first + " second: " + second + " third: " + third);
  };
  EXPECT_EXIT(life(), ::testing::ExitedWithCode(0),
              "first: .*illegal.* second: .*GPU 0 is lost to this process until a new process starts: .*illegal.* third: .*GPU 0 is lost to this process");
}

// A folder with a file of this name that is no library.
std::string folder_with_broken(const std::string& soname) {
  const fs::path folder = fs::path(::testing::TempDir()) / ("tandem_trouble_" + soname);
  fs::create_directories(folder);
  std::ofstream(folder / soname) << "no library\n";
  return folder.string();
}

// Whether this is the process in which a child's part of a test runs; it must not look for libraries before that.
bool in_child() { return ::testing::internal::InDeathTestChild(); }

// The same in a process that cannot use one of the libraries.
void run_without(const std::string& soname, const std::string& model, const std::string& engine_file) {
  const std::string folder = folder_with_broken(soname);
  const auto life = [&] {
    setenv("TANDEM_CUDA_LIBRARIES", folder.c_str(), 1);
    const Engine here = load_engine(engine_file);
    std::string notices;
    for (const std::string& text : here.notices()) notices += text + " ";
    Model model_here(here), on_cpu(engine_of(model, {.device = "cpu"}));
    const Arrays inputs = here.random_inputs(3);
    const RankArrays got = model_here.run(inputs), wanted = on_cpu.run(inputs);
    double worst = 0;
    for (const auto& [name, arrays] : wanted) {
      if (arrays[0].dtype != DType::f32) continue;
      const auto* a = reinterpret_cast<const float*>(arrays[0].data.get());
      const auto* b = reinterpret_cast<const float*>(got.at(name).at(0).data.get());
      for (std::size_t i = 0; i < arrays[0].size_bytes() / sizeof(float); ++i) {
        const double error = std::abs(static_cast<double>(a[i]) - static_cast<double>(b[i]));
        worst = error <= worst ? worst : error;
      }
    }
    end_with(worst < 2e-2 ? "right: " + notices : "wrong by " + std::to_string(worst));
  };
  EXPECT_EXIT(life(), ::testing::ExitedWithCode(0), "right: ");
}

TEST_F(GpuTrouble, WithoutALibraryOthersServe) {
  const std::string file = (fs::path(::testing::TempDir()) / "tandem_trouble.tandem").string();
  if (!in_child()) engine_of("bert_dynamo").save(file);
  for (const char* soname : {"libcudnn.so.9", "libnccl.so.2", "libcublasLt.so.13", "libnvrtc.so.13"}) {
    SCOPED_TRACE(soname);
    run_without(soname, "bert_dynamo", file);
  }
}

TEST_F(GpuTrouble, AnEngineOfAMachineWithCudnnIsChosenAgainWithoutIt) {
  const std::string file = (fs::path(::testing::TempDir()) / "tandem_trouble_cudnn.tandem").string();
  if (!in_child()) engine_of("llama_dynamo_f16").save(file);
  if (!in_child() && load_engine(file).describe().find("cudnn_attention") == std::string::npos) GTEST_SKIP() << "no step of the model takes cuDNN on this machine";
  const std::string folder = folder_with_broken("libcudnn.so.9");
  const auto life = [&] {
    setenv("TANDEM_CUDA_LIBRARIES", folder.c_str(), 1);
    const Engine here = load_engine(file);
    std::string notices;
    for (const std::string& text : here.notices()) notices += text + " ";
    Model(here).run(here.random_inputs(3));
    end_with((here.describe().find("\"kernel\":\"cudnn_attention\"") == std::string::npos ? "other kernels: " : "the same kernels: ") + notices);
  };
  EXPECT_EXIT(life(), ::testing::ExitedWithCode(0), "other kernels: .*cudnn .*here none.*chosen again");
  const auto strict = [&] {
    setenv("TANDEM_CUDA_LIBRARIES", folder.c_str(), 1);
    end_with(thrown([&] { load_engine(file, {.strict = true}); }).what());
  };
  EXPECT_EXIT(strict(), ::testing::ExitedWithCode(0), "built with cudnn .*here none");
}

}  // namespace
}  // namespace tandem
