// What goes wrong around a context on a GPU: what is said. What breaks a process runs in one of its own.
#include "gpu/trouble.h"
#include "import/model_builder.h"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <thread>

namespace tandem {
namespace {

namespace fs = std::filesystem;
using namespace testing;

TEST_F(GpuTrouble, AnEngineForAnotherGpuNamesBoth) {
  const Engine engine = engine_of("mlp_dynamo", {.device = "cuda", .target = "sm_70"});
  const Error error = thrown([&] { Context context(engine); });
  EXPECT_EQ(error.code(), ErrorCode::mismatch);
  EXPECT_NE(error.message().find("built for sm_70, this is "), std::string::npos) << error.what();
  cudaDeviceProp properties;
  cuda(cudaGetDeviceProperties(&properties, 0));
  const std::string here = "sm_" + std::to_string(properties.major) + std::to_string(properties.minor);
  EXPECT_NE(error.message().find("(" + here + ")"), std::string::npos) << error.what();
  Mlp fits(30, nullptr, engine_of("mlp_dynamo", {.device = "cuda", .target = here}));
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

TEST_F(GpuTrouble, ARecordedStreamOfAnotherGpu) {
  int count = 0;
  cuda(cudaGetDeviceCount(&count));
  if (count < 2) GTEST_SKIP() << "2 GPUs are needed, this machine has " << count;
  Mlp mlp;
  mlp.context.prepare();
  Buffer in(mlp.input.size_bytes()), out(mlp.wanted.size() * sizeof(float));
  const void* const from[] = {in.data};
  void* const to[] = {out.data};
  for (const cudaStreamCaptureMode mode : {cudaStreamCaptureModeGlobal, cudaStreamCaptureModeThreadLocal, cudaStreamCaptureModeRelaxed}) {
    cudaStream_t stream = nullptr;
    cudaGraph_t graph = nullptr;
    cuda(cudaSetDevice(1));
    cuda(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
    cuda(cudaStreamBeginCapture(stream, mode));
    cuda(cudaSetDevice(0));
    const Error error = thrown([&] { mlp.context.enqueue(from, to, stream); });
    EXPECT_EQ(error.code(), ErrorCode::invalid_argument);
    EXPECT_NE(error.message().find("the stream is of GPU 1, the engine runs on GPU 0"), std::string::npos) << error.what();
    cuda(cudaStreamEndCapture(stream, &graph));  // goes on as before
    cuda(cudaGraphDestroy(graph));
    cuda(cudaStreamDestroy(stream));
  }
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

// Of all outputs, on arrays of the host.
std::vector<std::string> run_bytes(const Engine& engine, int calls) {
  Context context(engine);
  const Arrays arrays = engine.random_inputs(3);
  const std::vector<Port> in = engine.inputs(), out = engine.outputs();
  std::vector<const void*> from;
  for (std::size_t i = 0; i < in.size(); ++i) {
    context.set_input_shape(i, arrays.at(in[i].name).shape);
    from.push_back(arrays.at(in[i].name).data.get());
  }
  std::vector<std::string> bytes;
  std::vector<void*> to;
  for (std::size_t i = 0; i < out.size(); ++i) bytes.emplace_back(Array{out[i].dtype, context.output_shape(i), nullptr}.size_bytes(), '\0');
  for (std::string& output : bytes) to.push_back(output.data());
  for (int call = 0; call < calls; ++call) context.run(from, to);
  return bytes;
}

// Weights are uploaded and packed, libraries are asked, kernels compiled, steps run and recorded, all beside the recording.
TEST_F(GpuTrouble, ARecordingIsNotDisturbedByLoadingAnything) {
  struct Case {
    const char *model, *weights;
  };
  for (const Case& c : {Case{"unet_legacy", ""},
                        {"resnet_legacy", ""},
                        {"llama_dynamo_f16", ""},
                        {"bert_legacy", "int8"},
                        {"bert_legacy", "int4"},
                        {"bert_legacy", "fp8"}}) {
    SCOPED_TRACE(std::string(c.model) + " " + c.weights);
    BuildOptions options;
    options.device = "cuda";
    options.weights = c.weights;
    const Engine engine = engine_of(c.model, options);
    const std::vector<std::string> alone = run_bytes(engine_of(c.model, options), 3);
    cudaStream_t other = nullptr;
    cudaGraph_t graph = nullptr;
    cuda(cudaStreamCreateWithFlags(&other, cudaStreamNonBlocking));
    cuda(cudaStreamBeginCapture(other, cudaStreamCaptureModeGlobal));
    EXPECT_EQ(run_bytes(engine, 3), alone);
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

TEST_F(GpuTrouble, ANullPointer) {
  Mlp mlp;
  Buffer in(mlp.input.size_bytes()), out(mlp.wanted.size() * sizeof(float));
  for (const bool input : {true, false}) {
    const void* const from[] = {input ? nullptr : in.data};
    void* const to[] = {input ? out.data : nullptr};
    const Error error = thrown([&] { mlp.context.enqueue(from, to); });
    EXPECT_EQ(error.code(), ErrorCode::invalid_argument);
    EXPECT_NE(error.message().find(input ? "input 'x' is given as a null pointer" : "is given as a null pointer"), std::string::npos)
        << error.what();
  }
  mlp.run(mlp.context);
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
              "first: .*illegal.* second: .*GPU 0 is lost to this process until a new process starts: .*illegal.* third: .*GPU 0 is lost "
              "to this process");
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

// x·y with y [n] beside x [batch, n]: the vectors of the kernel that is compiled depend on n.
std::string product_of_rows(const std::string& file) {
  OnnxModel model;
  model.input("x", {"batch", "n"});
  model.input("y", {"n"});
  model.node("Mul", {"x", "y"}, {"z"}, "product");
  model.output("z");
  const fs::path folder = ::testing::TempDir(), path = folder / "tandem_rows.onnx";
  std::ofstream(path, std::ios::binary) << model.proto.SerializeAsString();
  BuildOptions options;
  options.device = "cuda";
  options.shapes = {{"x", "1x8:2x64:4x128"}, {"y", "8:64:128"}};
  build(path.string(), options).save((folder / file).string());
  return (folder / file).string();
}

TEST_F(GpuTrouble, AShapeWhoseKernelCannotBeCompiledIsToldOf) {
  const std::string file =
      in_child() ? (fs::path(::testing::TempDir()) / "tandem_rows.tandem").string() : product_of_rows("tandem_rows.tandem");
  if (!in_child() && load_engine(file).describe().find("\"code\"") == std::string::npos) GTEST_SKIP() << "there is no NVRTC here";
  const std::string folder = folder_with_broken("libnvrtc.so.13");
  const auto life = [&] {
    setenv("TANDEM_CUDA_LIBRARIES", folder.c_str(), 1);
    Context context(load_engine(file));
    const auto run = [&](std::int64_t n) {
      const std::vector<float> x(static_cast<std::size_t>(2 * n), 3), y(static_cast<std::size_t>(n), 2);
      std::vector<float> z(x.size());
      const void* const from[] = {x.data(), y.data()};
      void* const to[] = {z.data()};
      context.set_input_shape(0, {2, n});
      context.set_input_shape(1, {n});
      context.run(from, to);
      return std::ranges::all_of(z, [](float value) { return value == 6; });
    };
    const bool before = run(64);
    const Error error = thrown([&] { run(9); });
    end_with(std::string(before && run(64) ? "right: " : "wrong: ") + (error.code() == ErrorCode::unsupported ? "" : "another code: ") +
             error.what());
  };
  EXPECT_EXIT(life(), ::testing::ExitedWithCode(0), "right: .*product.*cannot be compiled here: NVRTC cannot be used");
}

}  // namespace
}  // namespace tandem
