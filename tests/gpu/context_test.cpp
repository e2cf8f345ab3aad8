// A context on a GPU as its callers use it: own streams, own graphs, changing addresses and shapes, trouble. Needs a GPU: without one every
// test is skipped and says so.
#include "tandem/context.h"

#include <cuda_runtime.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <cstring>
#include <thread>

#include "gpu/here.h"
#include "gpu/spin_cuda.h"
#include "support/thrown.h"
#include "tandem/deadline.h"
#include "tandem/tandem.h"

namespace tandem {
namespace {

using testing::model_path;
using testing::thrown;

void cuda(cudaError_t status) { ASSERT_EQ(status, cudaSuccess) << cudaGetErrorString(status); }

// Copies from pageable memory and fills come back before they are done, and streams of ours do not wait for them.
void settle() { cuda(cudaDeviceSynchronize()); }

class OnGpu : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!testing::has_gpu()) GTEST_SKIP() << "this machine has no GPU";
  }
};

Engine engine_of(const std::string& model, const std::string& device = "cuda") {
  BuildOptions options;
  options.device = device;
  return build(model_path(model), options);
}

// Memory of the GPU with a copy of an array, or room for one.
struct OnDevice {
  explicit OnDevice(std::size_t size) : bytes(size) { cuda(cudaMalloc(&data, std::max<std::size_t>(size, 1))); }
  explicit OnDevice(const Array& array) : OnDevice(array.size_bytes()) {
    cuda(cudaMemcpy(data, array.data.get(), bytes, cudaMemcpyDefault));
  }
  ~OnDevice() { cudaFree(data); }
  OnDevice(const OnDevice&) = delete;
  std::vector<float> fetch() const {
    std::vector<float> values(bytes / sizeof(float));
    cuda(cudaMemcpy(values.data(), data, bytes, cudaMemcpyDefault));
    return values;
  }
  void* data = nullptr;
  std::size_t bytes;
};

std::vector<float> values_of(const Array& array) {
  std::vector<float> values(array.size_bytes() / sizeof(float));
  std::memcpy(values.data(), array.data.get(), array.size_bytes());
  return values;
}

void expect_near(const std::vector<float>& got, const std::vector<float>& wanted, float tolerance = 1e-4f) {
  ASSERT_EQ(got.size(), wanted.size());
  for (std::size_t i = 0; i < got.size(); ++i) ASSERT_NEAR(got[i], wanted[i], tolerance) << i;
}

// The MLP of the recorded models: one input, one output, both f32.
struct Mlp {
  Engine engine = engine_of("mlp_dynamo");
  Arrays inputs[2] = {engine.random_inputs(1), engine.random_inputs(2)};
  std::vector<float> wanted[2];
  Context context{engine};

  Mlp() {
    const Engine on_cpu = engine_of("mlp_dynamo", "cpu");
    for (int i = 0; i < 2; ++i) wanted[i] = values_of(Model(on_cpu).run(inputs[i]).begin()->second.at(0));
    context.set_input_shape(0, input(0).shape);
  }
  const Array& input(int i) const { return inputs[i].begin()->second; }
};

TEST_F(OnGpu, EnqueueGivesWhatTheCpuGivesFirstRecordedAndReplayed) {
  Mlp mlp;
  const OnDevice in(mlp.input(0));
  const OnDevice out(mlp.wanted[0].size() * sizeof(float));
  const void* const ins[] = {in.data};
  void* const outs[] = {out.data};
  for (int call = 0; call < 4; ++call) {
    cuda(cudaMemset(out.data, 0x5a, out.bytes));
    cuda(cudaMemcpy(in.data, mlp.input(call % 2).data.get(), in.bytes, cudaMemcpyDefault));
    settle();
    mlp.context.enqueue(ins, outs);
    mlp.context.synchronize();
    expect_near(out.fetch(), mlp.wanted[call % 2]);
  }
}

TEST_F(OnGpu, StreamsOfTheCaller) {
  Mlp mlp;
  cudaStream_t streams[2];
  for (cudaStream_t& stream : streams) cuda(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
  const OnDevice in0(mlp.input(0)), in1(mlp.input(1));
  const OnDevice out0(mlp.wanted[0].size() * sizeof(float)), out1(out0.bytes);
  settle();
  for (int round = 0; round < 20; ++round) {  // two calls share the context's memory, so the second waits for the first
    const void* const a[] = {in0.data};
    const void* const b[] = {in1.data};
    void* const x[] = {out0.data};
    void* const y[] = {out1.data};
    mlp.context.enqueue(a, x, streams[0]);
    mlp.context.enqueue(b, y, streams[1]);
  }
  for (cudaStream_t stream : streams) cuda(cudaStreamSynchronize(stream));
  expect_near(out0.fetch(), mlp.wanted[0]);
  expect_near(out1.fetch(), mlp.wanted[1]);
  for (cudaStream_t stream : streams) cuda(cudaStreamDestroy(stream));
}

TEST_F(OnGpu, ACapturedGraphOutlivesContextAndEngine) {
  cudaStream_t stream;
  cuda(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
  cudaGraph_t graph = nullptr;
  cudaGraphExec_t exec = nullptr;
  std::vector<float> wanted[2];
  Array inputs[2];
  std::unique_ptr<OnDevice> in, out;
  {
    Mlp mlp;
    for (int i = 0; i < 2; ++i) wanted[i] = mlp.wanted[i], inputs[i] = mlp.input(i);
    in = std::make_unique<OnDevice>(inputs[0]);
    out = std::make_unique<OnDevice>(wanted[0].size() * sizeof(float));
    mlp.context.prepare();
    const void* const ins[] = {in->data};
    void* const outs[] = {out->data};
    cuda(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
    mlp.context.enqueue(ins, outs, stream);
    cuda(cudaStreamEndCapture(stream, &graph));
    cuda(cudaGraphInstantiate(&exec, graph, 0));
    cuda(cudaGraphDestroy(graph));
  }
  for (int call = 0; call < 3; ++call) {
    cuda(cudaMemset(out->data, 0x5a, out->bytes));
    cuda(cudaMemcpy(in->data, inputs[call % 2].data.get(), in->bytes, cudaMemcpyDefault));
    settle();
    cuda(cudaGraphLaunch(exec, stream));
    cuda(cudaStreamSynchronize(stream));
    expect_near(out->fetch(), wanted[call % 2]);
  }
  cuda(cudaGraphExecDestroy(exec));
  cuda(cudaStreamDestroy(stream));
}

TEST_F(OnGpu, ShapesChangeAndComeBack) {
  const Engine gpu = engine_of("bert_dynamo"), cpu = engine_of("bert_dynamo", "cpu");
  Model on_gpu(gpu), on_cpu(cpu);
  for (const unsigned seed : {1u, 2u, 3u}) {
    const Arrays inputs = gpu.random_inputs(seed);
    const RankArrays got = on_gpu.run(inputs), wanted = on_cpu.run(inputs);
    for (const auto& [name, arrays] : wanted) expect_near(values_of(got.at(name).at(0)), values_of(arrays.at(0)), 1e-3f);
  }
}

// Profiles change while the work of others is under way and recordings of them are kept.
TEST_F(OnGpu, OptimizationProfilesInTurn) {
  BuildOptions options;
  options.profiles = {{{"x", "1x32:1x32:4x32"}}, {{"x", "2x32:64x32:256x32"}}};
  const Engine on_cpu = build(model_path("mlp_legacy"), options);
  options.device = "cuda";
  const Engine engine = build(model_path("mlp_legacy"), options);
  Context context(engine);
  EXPECT_LE(context.max_device_memory_bytes(0), context.max_device_memory_bytes(1));
  std::unique_ptr<OnDevice> in[2], out[2];
  std::vector<float> wanted[2];
  Shape shapes[2];
  for (int p = 0; p < 2; ++p) {
    const Arrays inputs = on_cpu.random_inputs(7, p);
    const Array& x = inputs.at("x");
    shapes[p] = x.shape;
    wanted[p] = values_of(Model(on_cpu).run(inputs).at("y").at(0));
    in[p] = std::make_unique<OnDevice>(x);
    out[p] = std::make_unique<OnDevice>(wanted[p].size() * sizeof(float));
  }
  for (int round = 0; round < 4; ++round) {  // at first, recorded, replayed
    for (const auto& o : out) cuda(cudaMemset(o->data, 0x5a, o->bytes));
    settle();
    for (int p = 0; p < 2; ++p) {
      const void* const ins[] = {in[p]->data};
      void* const outs[] = {out[p]->data};
      context.set_profile(p);
      context.set_input_shape(0, shapes[p]);
      context.enqueue(ins, outs);
    }
    context.synchronize();
    for (int p = 0; p < 2; ++p) expect_near(out[p]->fetch(), wanted[p]);
  }
  context.set_profile(0);
  EXPECT_EQ(thrown([&] { context.prepare(); }).code(), ErrorCode::invalid_argument);  // the shape set last is for profile 1
  context.set_profile(1);
  context.prepare();
}

TEST_F(OnGpu, ManyContextsOfOneEngineInThreads) {
  const Engine engine = engine_of("mlp_dynamo");
  const Arrays inputs = engine.random_inputs(1);
  const std::vector<float> wanted = values_of(Model(engine_of("mlp_dynamo", "cpu")).run(inputs).begin()->second.at(0));
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t)
    threads.emplace_back([&] {
      Context context(engine);
      context.set_input_shape(0, inputs.begin()->second.shape);
      std::vector<float> out(wanted.size());
      const void* const in[] = {inputs.begin()->second.data.get()};
      void* const to[] = {out.data()};
      for (int call = 0; call < 20; ++call) {
        std::fill(out.begin(), out.end(), -1.0f);
        context.run(in, to);
        expect_near(out, wanted);
      }
    });
  for (std::thread& thread : threads) thread.join();
}

TEST_F(OnGpu, MemoryOfTheCallers) {
  Mlp mlp;
  const OnDevice in(mlp.input(0)), out(mlp.wanted[0].size() * sizeof(float));
  const std::size_t bytes = mlp.context.device_memory_bytes();
  const OnDevice block(bytes + 64);
  cuda(cudaMemset(block.data, 0x5a, block.bytes));
  settle();
  const void* const ins[] = {in.data};
  void* const outs[] = {out.data};
  mlp.context.set_device_memory(block.data, bytes);
  for (int call = 0; call < 3; ++call) {
    cuda(cudaMemset(out.data, 0x5a, out.bytes));
    settle();
    mlp.context.enqueue(ins, outs);
    mlp.context.synchronize();
    expect_near(out.fetch(), mlp.wanted[0]);
  }
  std::vector<unsigned char> held(block.bytes);
  cuda(cudaMemcpy(held.data(), block.data, block.bytes, cudaMemcpyDefault));
  EXPECT_TRUE(std::any_of(held.begin(), held.begin() + static_cast<std::ptrdiff_t>(bytes), [](unsigned char c) { return c != 0x5a; }));
  EXPECT_TRUE(std::all_of(held.begin() + static_cast<std::ptrdiff_t>(bytes), held.end(), [](unsigned char c) { return c == 0x5a; }));
  EXPECT_EQ(thrown([&] { mlp.context.set_device_memory(block.data, bytes - 1); }).code(), ErrorCode::out_of_memory);
}

// Takes memory in the order of the stream that it is told.
class StreamOrdered : public DeviceAllocator {
 public:
  void* allocate(std::size_t bytes, std::size_t, void* stream) override {
    void* memory = nullptr;
    cuda(cudaMallocAsync(&memory, bytes, static_cast<cudaStream_t>(stream)));
    ++given;
    return memory;
  }
  void release(void* memory, void* stream) noexcept override {
    EXPECT_EQ(cudaFreeAsync(memory, static_cast<cudaStream_t>(stream)), cudaSuccess);
    ++taken;
  }
  int given = 0, taken = 0;
};

TEST_F(OnGpu, AnAllocatorInTheOrderOfStreams) {
  const auto allocator = std::make_shared<StreamOrdered>();
  {
    Mlp mlp;
    Context context(mlp.engine, {.allocator = allocator});
    context.set_input_shape(0, mlp.input(0).shape);
    std::vector<float> out(mlp.wanted[0].size());
    const void* const from[] = {mlp.input(0).data.get()};
    void* const to[] = {out.data()};
    for (int call = 0; call < 3; ++call) {
      std::fill(out.begin(), out.end(), -1.0f);
      context.run(from, to);
      expect_near(out, mlp.wanted[0]);
    }
    EXPECT_GT(allocator->given, 0);
  }
  EXPECT_EQ(allocator->given, allocator->taken);
}

TEST_F(OnGpu, TheEventOfConsumedInputsIsRecordedByEveryRun) {
  Mlp mlp;
  cudaEvent_t consumed;
  cudaStream_t stream;
  cuda(cudaEventCreateWithFlags(&consumed, cudaEventDisableTiming));
  cuda(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
  mlp.context.set_inputs_consumed_event(consumed);
  const OnDevice in(mlp.input(0)), out(mlp.wanted[0].size() * sizeof(float));
  const void* const ins[] = {in.data};
  void* const outs[] = {out.data};
  settle();
  for (int call = 0; call < 4; ++call) {  // one by one, recorded, replayed: another stream overwrites the inputs once it may
    cuda(cudaMemcpyAsync(in.data, mlp.input(call % 2).data.get(), in.bytes, cudaMemcpyDefault, stream));
    cuda(cudaStreamSynchronize(stream));
    mlp.context.enqueue(ins, outs);
    cuda(cudaStreamWaitEvent(stream, consumed, 0));
    cuda(cudaMemsetAsync(in.data, 0xff, in.bytes, stream));
    mlp.context.synchronize();
    cuda(cudaStreamSynchronize(stream));
    expect_near(out.fetch(), mlp.wanted[call % 2]);
  }
  mlp.context.set_inputs_consumed_event(nullptr);
  cuda(cudaEventDestroy(consumed));
  cuda(cudaStreamDestroy(stream));
}

// Replays begin late, so that an event that they did not record would be that of the replay before.
TEST_F(OnGpu, TheEventOfConsumedInputsIsPartOfACallersRecording) {
  Mlp mlp;
  int* stop = nullptr;
  cudaEvent_t consumed;
  cudaStream_t stream, other;
  cudaGraph_t graph = nullptr;
  cudaGraphExec_t exec = nullptr;
  cuda(cudaHostAlloc(reinterpret_cast<void**>(&stop), sizeof(int), cudaHostAllocMapped));
  *stop = 0;
  cuda(cudaEventCreateWithFlags(&consumed, cudaEventDisableTiming));
  for (cudaStream_t* one : {&stream, &other}) cuda(cudaStreamCreateWithFlags(one, cudaStreamNonBlocking));
  mlp.context.set_inputs_consumed_event(consumed);
  mlp.context.prepare();
  const OnDevice in(mlp.input(0)), out(mlp.wanted[0].size() * sizeof(float));
  const void* const ins[] = {in.data};
  void* const outs[] = {out.data};
  cuda(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
  mlp.context.enqueue(ins, outs, stream);
  cuda(cudaStreamEndCapture(stream, &graph));
  cuda(cudaGraphInstantiate(&exec, graph, 0));
  for (int call = 0; call < 4; ++call) {
    cuda(cudaMemcpy(in.data, mlp.input(call % 2).data.get(), in.bytes, cudaMemcpyDefault));
    settle();
    testing::launch_spin(stop, 0.05, stream);
    cuda(cudaGraphLaunch(exec, stream));
    cuda(cudaStreamWaitEvent(other, consumed, 0));
    cuda(cudaMemsetAsync(in.data, 0xff, in.bytes, other));
    settle();
    expect_near(out.fetch(), mlp.wanted[call % 2]);
  }
  cuda(cudaGraphExecDestroy(exec));
  cuda(cudaGraphDestroy(graph));
  mlp.context.set_inputs_consumed_event(nullptr);
  cuda(cudaEventDestroy(consumed));
  for (cudaStream_t one : {stream, other}) cuda(cudaStreamDestroy(one));
  cuda(cudaFreeHost(stop));
}

TEST_F(OnGpu, TheProfilerTellsTheTimesOfTheGpu) {
  Mlp mlp;
  const OnDevice in(mlp.input(0)), out(mlp.wanted[0].size() * sizeof(float));
  const void* const ins[] = {in.data};
  void* const outs[] = {out.data};
  mlp.context.prepare();
  std::vector<StepTime> steps;
  mlp.context.set_profiler([&](const StepTime& step) { steps.push_back(step); });
  const std::int64_t begin = monotonic_ns();
  mlp.context.enqueue(ins, outs);
  const double whole = static_cast<double>(monotonic_ns() - begin) * 1e-9;
  ASSERT_GE(steps.size(), 2u);
  double sum = 0, last = 0;
  for (std::size_t i = 0; i < steps.size(); ++i) {
    EXPECT_EQ(steps[i].step, i);
    EXPECT_GT(steps[i].seconds, 0);
    EXPECT_GE(steps[i].begin, last - 1e-6);
    last = steps[i].begin + steps[i].seconds;
    sum += steps[i].seconds;
  }
  EXPECT_LT(sum, whole);
  expect_near(out.fetch(), mlp.wanted[0]);
  const std::size_t count = steps.size();
  mlp.context.enqueue(ins, outs);
  EXPECT_EQ(steps.size(), 2 * count);
  mlp.context.set_profiler({});
  mlp.context.enqueue(ins, outs);
  mlp.context.synchronize();
  EXPECT_EQ(steps.size(), 2 * count);
  expect_near(out.fetch(), mlp.wanted[0]);
}

TEST_F(OnGpu, TooLittleMemorySaysWhatIsNeededAndFree) {
  BuildOptions options;
  options.device = "cuda";
  options.shapes["x"] = "1x32:8x32:1073741824x32";
  const Engine engine = build(model_path("mlp_dynamo"), options);
  Context context(engine);
  context.set_input_shape(0, {std::int64_t{1} << 30, 32});
  const Error error = thrown([&] { context.prepare(); });
  EXPECT_EQ(error.code(), ErrorCode::out_of_memory) << error.what();
  for (const char* part : {" bytes are needed on ", " are free"}) EXPECT_NE(error.message().find(part), std::string::npos) << error.what();
  context.set_input_shape(0, {8, 32});
  context.prepare();  // as if nothing had been
}

TEST(WithoutGpu, AnEngineForGpusIsBuiltAndInspected) {
  const Engine engine = engine_of("bert_dynamo");
  EXPECT_NE(engine.describe().find("\"device\":\"cuda\""), std::string::npos);
  if (testing::has_gpu()) GTEST_SKIP() << "the rest is about machines without a GPU";
  const Error error = thrown([&] { Context context(engine); });
  EXPECT_EQ(error.code(), ErrorCode::unsupported);
  EXPECT_NE(error.message().find("no CUDA device"), std::string::npos) << error.what();
}

}  // namespace
}  // namespace tandem
