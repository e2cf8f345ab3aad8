// Extents that are measured in a run, on a GPU: the host waits for them and gives the steps behind. Needs one: without it every test is
// skipped and says so.
#include <gtest/gtest.h>

#include <cstring>
#include <map>
#include <random>

#include "gpu/trouble.h"
#include "tandem/tandem.h"

namespace tandem {
namespace {

using namespace testing;

class MeasuredOnGpu : public GpuTrouble {};

constexpr std::int64_t kRows = 300, kColumns = 40;

// Index tuples as GatherND takes them.
Network::Value tuples(Network& network, const Network::Value& indices) {
  return network.add("Transpose", {indices}, {{"permutation", std::vector<std::int64_t>{1, 0}}});
}

// Where x is not zero, and those elements, twice as large.
Engine selection(const std::string& device = "cuda") {
  Network network;
  const auto x = network.input("x", DType::f32, {"B", kColumns});
  const auto indices = network.add_all("NonZero", {x}, {}, "find").at(0);
  const auto picked = network.add("GatherND", {x, tuples(network, indices)});
  network.output("indices", indices);
  network.output("doubled", network.add("Add", {picked, picked}));
  return build(network, {.device = device});
}

// One of `in` elements is not zero.
std::vector<float> sparse(unsigned in, unsigned seed) {
  std::mt19937 random(seed);
  std::vector<float> values(static_cast<std::size_t>(kRows * kColumns));
  for (float& v : values) v = random() % in == 0 ? static_cast<float>(random() % 100 + 1) : 0.0f;
  return values;
}

struct Expected {
  std::vector<std::int64_t> indices;  // rows, then columns
  std::vector<float> doubled;
  explicit Expected(const std::vector<float>& x) {
    std::vector<std::int64_t> columns;
    for (std::int64_t i = 0; i < kRows * kColumns; ++i) {
      const float v = x[static_cast<std::size_t>(i)];
      if (v == 0) continue;
      indices.push_back(i / kColumns);
      columns.push_back(i % kColumns);
      doubled.push_back(2 * v);
    }
    indices.insert(indices.end(), columns.begin(), columns.end());
  }
};

// Room for the most, on the GPU.
struct Caller {
  Context context;
  Buffer in{static_cast<std::size_t>(kRows * kColumns) * sizeof(float)};
  Buffer indices{static_cast<std::size_t>(2 * kRows * kColumns) * sizeof(std::int64_t)};
  Buffer doubled{static_cast<std::size_t>(kRows * kColumns) * sizeof(float)};
  cudaStream_t stream = nullptr;

  explicit Caller(const Engine& engine) : context(engine) {
    context.set_input_shape(0, {kRows, kColumns});
    cuda(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
  }
  ~Caller() { cudaStreamDestroy(stream); }
  void enqueue() {
    const void* const from[] = {in.data};
    void* const to[] = {indices.data, doubled.data};
    context.enqueue(from, to, stream);
  }
  void give(const std::vector<float>& x) { cuda(cudaMemcpyAsync(in.data, x.data(), x.size() * sizeof(float), cudaMemcpyDefault, stream)); }
  void expect(const std::vector<float>& x) {
    const Expected expected(x);
    const auto count = static_cast<std::int64_t>(expected.doubled.size());
    ASSERT_EQ(context.last_output_shape(0), (Shape{2, count}));
    ASSERT_EQ(context.last_output_shape(1), Shape{count});
    std::vector<std::int64_t> found(expected.indices.size());
    std::vector<float> twice(expected.doubled.size());
    cuda(cudaMemcpyAsync(found.data(), indices.data, found.size() * sizeof(std::int64_t), cudaMemcpyDefault, stream));
    cuda(cudaMemcpyAsync(twice.data(), doubled.data, twice.size() * sizeof(float), cudaMemcpyDefault, stream));
    cuda(cudaStreamSynchronize(stream));
    EXPECT_EQ(found, expected.indices);
    EXPECT_EQ(twice, expected.doubled);
  }
};

TEST_F(MeasuredOnGpu, EnqueueGivesWhatLoopsGive) {
  Caller run(selection());
  for (const unsigned in : {3u, 1u, 3u, 1000000000u, 100u, 3u, 3u}) {
    const std::vector<float> x = sparse(in, in);
    run.give(x);
    run.enqueue();
    run.expect(x);
  }
}

TEST_F(MeasuredOnGpu, AHostsArraysAndAPreparedContext) {
  Context context(selection());
  context.set_input_shape(0, {kRows, kColumns});
  context.prepare();
  EXPECT_EQ(thrown([&] { context.last_output_shape(1); }).code(), ErrorCode::invalid_argument);  // nothing of the caller's has run
  const std::vector<float> x = sparse(5, 1);
  const Expected expected(x);
  std::vector<std::int64_t> indices(static_cast<std::size_t>(2 * kRows * kColumns), -1);
  std::vector<float> doubled(static_cast<std::size_t>(kRows * kColumns));
  const void* const in[] = {x.data()};
  void* const out[] = {indices.data(), doubled.data()};
  for (int i = 0; i < 3; ++i) context.run(in, out);
  ASSERT_EQ(context.last_output_shape(1), Shape{static_cast<std::int64_t>(expected.doubled.size())});
  indices.resize(expected.indices.size());
  doubled.resize(expected.doubled.size());
  EXPECT_EQ(indices, expected.indices);
  EXPECT_EQ(doubled, expected.doubled);
}

TEST_F(MeasuredOnGpu, AnAllocatorIsToldTheShape) {
  struct Outputs final : OutputAllocator {
    std::unique_ptr<Buffer> memory;
    Shape shape;
    void* reallocate(std::size_t, void*, std::size_t bytes, void*) override {
      memory = std::make_unique<Buffer>(bytes);
      return memory->data;
    }
    void notify_shape(std::size_t, const Shape& of) override { shape = of; }
  };
  Caller run(selection());
  const auto outputs = std::make_shared<Outputs>();
  run.context.set_output_allocator(1, outputs);
  const std::vector<float> x = sparse(4, 2);
  run.give(x);
  run.enqueue();
  const Expected expected(x);
  EXPECT_EQ(outputs->shape, Shape{static_cast<std::int64_t>(expected.doubled.size())});
  std::vector<float> got(expected.doubled.size());
  cuda(cudaStreamSynchronize(run.stream));
  cuda(cudaMemcpy(got.data(), outputs->memory->data, got.size() * sizeof(float), cudaMemcpyDefault));
  EXPECT_EQ(got, expected.doubled);
}

TEST_F(MeasuredOnGpu, IsNoPartOfACapture) {
  Caller run(selection());
  const std::vector<float> x = sparse(4, 2);
  run.give(x);
  run.enqueue();
  run.expect(x);
  cuda(cudaStreamBeginCapture(run.stream, cudaStreamCaptureModeThreadLocal));
  const Error error = thrown([&] { run.enqueue(); });
  EXPECT_EQ(error.code(), ErrorCode::unsupported);
  EXPECT_EQ(error.node(), "NonZero \"find\"");
  cudaGraph_t graph = nullptr;
  cudaStreamEndCapture(run.stream, &graph);
  if (graph) cudaGraphDestroy(graph);
  cudaGetLastError();
  run.enqueue();
  run.expect(x);
}

// An output that is the input is copied behind all steps. The event was last recorded behind what has not ended.
TEST_F(MeasuredOnGpu, TheEventOfConsumedInputsIsRecordedBehindTheCopies) {
  Network network;
  const auto x = network.input("x", DType::f32, {"B", kColumns});
  network.output("indices", network.add_all("NonZero", {x}, {}, "find").at(0));
  network.output("same", x);
  Caller run(build(network, {.device = "cuda"}));
  const Flag stop;
  cudaEvent_t consumed = nullptr;
  cudaStream_t other = nullptr;
  cuda(cudaEventCreateWithFlags(&consumed, cudaEventDisableTiming));
  cuda(cudaStreamCreateWithFlags(&other, cudaStreamNonBlocking));
  run.context.set_inputs_consumed_event(consumed);
  run.give(sparse(4, 2));
  run.enqueue();
  cuda(cudaStreamSynchronize(run.stream));
  launch_spin(stop.word, kLongestSpin, other);
  cuda(cudaEventRecord(consumed, other));
  EXPECT_EQ(cudaEventQuery(consumed), cudaErrorNotReady);
  run.enqueue();
  cuda(cudaStreamSynchronize(run.stream));
  EXPECT_EQ(cudaEventQuery(consumed), cudaSuccess);
  *stop.word = 1;
  cuda(cudaStreamSynchronize(other));
  run.context.set_inputs_consumed_event(nullptr);
  cuda(cudaEventDestroy(consumed));
  cuda(cudaStreamDestroy(other));
}

TEST_F(MeasuredOnGpu, StepsAreTimedWithoutWaitingForTheWatch) {
  Caller run(selection());
  std::map<std::string, double> times;
  run.context.set_profiler([&](const StepTime& step) { times[step.op] = step.seconds; });
  const std::vector<float> x = sparse(4, 2);
  run.give(x);
  run.enqueue();
  run.expect(x);
  EXPECT_GT(times["NonZero"], 0);
  EXPECT_LT(times["NonZero"], 0.1);  // the watch holds a stream up for 200 ms at most
  EXPECT_GT(times["Add"], 0);
}

TEST_F(MeasuredOnGpu, RanksOnTheHostSayTheSame) {
  const std::vector<float> x = sparse(6, 3);
  const Array array{DType::f32,
                    {kRows, kColumns},
                    std::shared_ptr<const std::byte>(std::shared_ptr<void>(), reinterpret_cast<const std::byte*>(x.data()))};
  const auto gpu = Model(selection()).run(Arrays{{"x", array}}), cpu = Model(selection("cpu")).run(Arrays{{"x", array}});
  for (const char* name : {"indices", "doubled"}) {
    const Array &a = gpu.at(name).at(0), &b = cpu.at(name).at(0);
    ASSERT_EQ(a.shape, b.shape);
    EXPECT_EQ(std::memcmp(a.data.get(), b.data.get(), a.size_bytes()), 0) << name;
  }
}

}  // namespace
}  // namespace tandem
