// Memory of a context that the caller supplies: as a block, or by an allocator.
#include <gtest/gtest.h>

#include <chrono>
#include <cstdlib>
#include <cstring>
#include <map>
#include <optional>
#include <thread>

#include "support/thrown.h"
#include "tandem/tandem.h"

namespace tandem {
namespace {

using testing::thrown;

Engine bert() {
  BuildOptions options;
  options.shapes["input_ids"] = "1x4:2x8:4x16";
  return build(std::string(TANDEM_MODELS) + "/bert_dynamo.onnx", options);
}

struct Call {
  explicit Call(const Engine& engine, unsigned seed = 0) : arrays(engine.random_inputs(seed)) {
    for (const Port& port : engine.inputs())
      inputs.push_back(arrays.at(port.name).data.get()), shapes.push_back(arrays.at(port.name).shape);
  }
  std::vector<std::vector<float>> run(Context& context) {
    for (std::size_t i = 0; i < shapes.size(); ++i) context.set_input_shape(i, shapes[i]);
    std::vector<std::vector<float>> outputs;
    for (std::size_t i = 0; i < count; ++i) outputs.emplace_back(static_cast<std::size_t>(element_count(context.output_shape(i))), -1.0f);
    std::vector<void*> to;
    for (auto& output : outputs) to.push_back(output.data());
    context.run(inputs, to);
    return outputs;
  }
  Arrays arrays;
  std::vector<const void*> inputs;
  std::vector<Shape> shapes;
  std::size_t count = 1;
};

Call call_of(const Engine& engine, unsigned seed = 0) {
  Call call(engine, seed);
  call.count = engine.outputs().size();
  return call;
}

// `bytes` at an aligned address, and a guard behind them.
struct Block {
  explicit Block(std::size_t size)
      : bytes(size),
        data(static_cast<std::byte*>(
            std::aligned_alloc(kDeviceAlignment, (size + 2 * kDeviceAlignment) / kDeviceAlignment * kDeviceAlignment))) {
    std::memset(data, 0x5a, bytes + 64);
  }
  ~Block() { std::free(data); }
  Block(const Block&) = delete;
  bool used() const {
    return std::any_of(data, data + bytes, [](std::byte b) { return b != std::byte{0x5a}; });
  }
  bool guard_holds() const {
    return std::all_of(data + bytes, data + bytes + 64, [](std::byte b) { return b == std::byte{0x5a}; });
  }
  std::size_t bytes;
  std::byte* data;
};

// More shapes than a context keeps, at the same addresses, and each of them at others too.
TEST(ContextMemory, ShapesTakeTurnsAtTheSameAddresses) {
  const Engine engine = bert();
  const Call call = call_of(engine);
  Context context(engine);
  std::vector<std::vector<float>> here(engine.outputs().size(), std::vector<float>(1 << 16)), there = here;
  const auto run = [&](Context& with, const Shape& shape, std::vector<std::vector<float>>& outputs) {
    for (std::size_t i = 0; i < call.inputs.size(); ++i) with.set_input_shape(i, shape);
    std::vector<void*> to;
    for (auto& output : outputs) std::ranges::fill(output, -1.0f), to.push_back(output.data());
    with.run(call.inputs, to);
  };
  for (int round = 0; round < 2; ++round)
    for (const Shape& shape : {Shape{1, 4}, Shape{2, 8}, Shape{1, 5}, Shape{2, 7}, Shape{1, 6}, Shape{2, 4}}) {
      Context fresh(engine);
      std::vector<std::vector<float>> wanted = here;
      run(fresh, shape, wanted);
      for (auto* outputs : {&here, &there, &there, &here}) {
        run(context, shape, *outputs);
        EXPECT_EQ(*outputs, wanted);
      }
    }
}

TEST(ContextMemory, ABlockOfTheCallers) {
  const Engine engine = bert();
  Call call = call_of(engine);
  Context plain(engine), context(engine);
  const auto wanted = call.run(plain);
  for (std::size_t i = 0; i < call.shapes.size(); ++i) context.set_input_shape(i, call.shapes[i]);
  const std::size_t bytes = context.device_memory_bytes();
  ASSERT_GT(bytes, 1000u);
  Block block(bytes);
  context.set_device_memory(block.data, bytes);
  EXPECT_EQ(call.run(context), wanted);
  EXPECT_TRUE(block.used());
  EXPECT_TRUE(block.guard_holds());
  std::memset(block.data, 0x5a, bytes);
  context.set_device_memory(nullptr, 0);
  EXPECT_EQ(call.run(context), wanted);
  EXPECT_FALSE(block.used());
}

TEST(ContextMemory, ABlockThatDoesNotDo) {
  const Engine engine = bert();
  Call call = call_of(engine);
  Context context(engine);
  for (std::size_t i = 0; i < call.shapes.size(); ++i) context.set_input_shape(i, call.shapes[i]);
  const std::size_t bytes = context.device_memory_bytes();
  Block block(bytes + kDeviceAlignment);
  const Error crooked = thrown([&] { context.set_device_memory(block.data + 64, bytes); });
  EXPECT_EQ(crooked.code(), ErrorCode::invalid_argument);
  EXPECT_NE(crooked.message().find("256 bytes"), std::string::npos) << crooked.what();
  const Error small = thrown([&] { context.set_device_memory(block.data, bytes - 1); });
  EXPECT_EQ(small.code(), ErrorCode::out_of_memory);
  EXPECT_NE(small.message().find(std::to_string(bytes) + " bytes are needed"), std::string::npos) << small.what();
  EXPECT_NE(small.message().find(std::to_string(bytes - 1)), std::string::npos) << small.what();
  const auto wanted = call.run(context);  // as before
  context.set_device_memory(block.data, bytes);
  for (std::size_t i = 0; i < call.shapes.size(); ++i) context.set_input_shape(i, {4, 16});
  EXPECT_EQ(thrown([&] { context.run(call.inputs, std::vector<void*>(call.count, block.data)); }).code(), ErrorCode::out_of_memory);
  EXPECT_GT(context.device_memory_bytes(), bytes);
  EXPECT_EQ(call.run(context), wanted);
  EXPECT_TRUE(block.guard_holds());
}

TEST(ContextMemory, TheLargestShapesOfTheProfile) {
  const Engine engine = bert();
  Context context(engine);
  const std::size_t most = context.max_device_memory_bytes();
  for (std::size_t i = 0; i < engine.inputs().size(); ++i) context.set_input_shape(i, {4, 16});
  EXPECT_EQ(context.device_memory_bytes(), most);
  for (std::size_t i = 0; i < engine.inputs().size(); ++i) context.set_input_shape(i, {1, 4});
  EXPECT_LT(context.device_memory_bytes(), most);
  EXPECT_EQ(thrown([&] { context.max_device_memory_bytes(1); }).code(), ErrorCode::invalid_argument);
}

TEST(ContextMemory, OneBlockForContextsInTurn) {
  const Engine engine = bert();
  Call first = call_of(engine, 1), second = call_of(engine, 2);
  Context plain(engine), a(engine), b(engine);
  const auto wanted_first = first.run(plain), wanted_second = second.run(plain);
  Block block(a.max_device_memory_bytes());
  for (Context* context : {&a, &b}) context->set_device_memory(block.data, block.bytes);
  for (int round = 0; round < 3; ++round) {
    EXPECT_EQ(first.run(a), wanted_first);
    EXPECT_EQ(second.run(b), wanted_second);
  }
}

// Keeps books; gives nothing beyond `limit` bytes.
class Pool : public DeviceAllocator {
 public:
  void* allocate(std::size_t bytes, std::size_t alignment, void* stream) override {
    EXPECT_EQ(stream, nullptr);
    EXPECT_EQ(alignment, kDeviceAlignment);
    if (bytes > limit) return nullptr;
    void* memory = std::aligned_alloc(alignment, (bytes + shift + alignment - 1) / alignment * alignment);
    given[static_cast<std::byte*>(memory) + shift] = memory;
    ++allocations;
    return static_cast<std::byte*>(memory) + shift;
  }
  void release(void* memory, void* stream) noexcept override {
    EXPECT_EQ(stream, nullptr);
    ASSERT_EQ(given.count(memory), 1u);
    std::free(given.at(memory));
    given.erase(memory);
  }
  std::map<void*, void*> given;
  std::size_t limit = SIZE_MAX, shift = 0;
  int allocations = 0;
};

TEST(ContextMemory, AnAllocatorOfTheCallers) {
  const Engine engine = bert();
  const auto pool = std::make_shared<Pool>();
  Call call = call_of(engine);
  Context plain(engine);
  {
    Context context(engine, {.allocator = pool});
    EXPECT_EQ(pool->allocations, 0);
    EXPECT_EQ(call.run(context), call.run(plain));
    EXPECT_EQ(pool->given.size(), 1u);
    pool->limit = 1000;
    for (std::size_t i = 0; i < call.shapes.size(); ++i) context.set_input_shape(i, {4, 16});
    const std::size_t bytes = context.device_memory_bytes();
    std::byte unwritten{};  // as there is no memory to run in
    const Error none = thrown([&] { context.run(call.inputs, std::vector<void*>(call.count, &unwritten)); });
    EXPECT_EQ(none.code(), ErrorCode::out_of_memory);
    EXPECT_NE(none.message().find(std::to_string(bytes) + " bytes are needed on CPU"), std::string::npos) << none.what();
    pool->limit = SIZE_MAX;
    pool->shift = 64;
    EXPECT_EQ(thrown([&] { call.run(context); }).code(), ErrorCode::invalid_argument);
    EXPECT_TRUE(pool->given.empty());
    pool->shift = 0;
    EXPECT_EQ(call.run(context), call.run(plain));
  }
  EXPECT_TRUE(pool->given.empty());
}

class NoMemory : public DeviceAllocator {
 public:
  void* allocate(std::size_t, std::size_t, void*) override { return nullptr; }
  void release(void*, void*) noexcept override {}
};

// One rank has none for its activations: it says so, and may try again; the other one hears of it once that goes.
TEST(ContextMemory, NoneOnOneRankEndsTheOther) {
  BuildOptions options;
  options.mesh = "tp=2";
  options.shapes["x"] = "8x32";
  const Engine engine = build(std::string(TANDEM_MODELS) + "/mlp_dynamo.onnx", options);
  auto groups = Group::in_process(2);
  const auto start = std::chrono::steady_clock::now();
  std::vector<std::optional<Error>> errors(2);
  std::vector<std::thread> threads;
  for (int rank = 0; rank < 2; ++rank)
    threads.emplace_back([&, rank] {
      ContextOptions of_rank{.rank = rank, .threads = 1};
      if (rank == 1) of_rank.allocator = std::make_shared<NoMemory>();
      Context context(engine, of_rank);
      context.set_communicator(std::move(groups[static_cast<std::size_t>(rank)]));
      errors[static_cast<std::size_t>(rank)] = thrown([&] { call_of(engine).run(context); });
    });
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(errors[1]->code(), ErrorCode::out_of_memory) << errors[1]->what();
  EXPECT_EQ(errors[0]->rank(), 1) << errors[0]->what();
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(20));
}

class Outputs : public OutputAllocator {
 public:
  void* reallocate(std::size_t output, void* current, std::size_t bytes, void* stream) override {
    EXPECT_EQ(output, 0u);
    EXPECT_EQ(stream, nullptr);
    before = current;
    if (bytes > limit) return nullptr;
    values.assign(bytes / sizeof(float), -1);
    return values.data();
  }
  void notify_shape(std::size_t, const Shape& of) override { shape = of; }
  void* before = nullptr;
  std::size_t limit = SIZE_MAX;
  std::vector<float> values;
  Shape shape;
};

TEST(ContextMemory, OutputsOfAnAllocator) {
  const Engine engine = bert();
  Call call = call_of(engine);
  Context plain(engine), context(engine);
  const auto wanted = call.run(plain);
  const auto allocator = std::make_shared<Outputs>();
  context.set_output_allocator(0, allocator);
  EXPECT_EQ(thrown([&] { context.set_output_allocator(2, allocator); }).code(), ErrorCode::invalid_argument);
  const auto got = call.run(context);
  EXPECT_EQ(allocator->values, wanted[0]);
  EXPECT_EQ(allocator->shape, context.output_shape(0));
  EXPECT_EQ(allocator->before, got[0].data());
  EXPECT_EQ(got[0], std::vector<float>(wanted[0].size(), -1.0f));  // what was given is not written
  EXPECT_EQ(got[1], wanted[1]);
  allocator->limit = 8;
  const Error none = thrown([&] { call.run(context); });
  EXPECT_EQ(none.code(), ErrorCode::out_of_memory);
  EXPECT_NE(none.message().find("output 'last_hidden_state'"), std::string::npos) << none.what();
  context.set_output_allocator(0, nullptr);
  EXPECT_EQ(call.run(context), wanted);
}

TEST(ContextMemory, EventsAreForGpus) {
  Context context(bert());
  int event = 0;
  EXPECT_EQ(thrown([&] { context.set_inputs_consumed_event(&event); }).code(), ErrorCode::unsupported);
  context.set_inputs_consumed_event(nullptr);
}

TEST(ContextMemory, NullPointersAreForWhatHasNoBytes) {
  const Engine engine = bert();
  Context context(engine);
  const Call call = call_of(engine);
  for (std::size_t i = 0; i < call.shapes.size(); ++i) context.set_input_shape(i, call.shapes[i]);
  std::vector<std::vector<std::byte>> room;
  std::vector<void*> to;
  for (std::size_t i = 0; i < call.count; ++i)
    room.emplace_back(Array{engine.outputs()[i].dtype, context.output_shape(i), nullptr}.size_bytes());
  for (auto& output : room) to.push_back(output.data());
  const auto expect_refused = [&](const std::vector<const void*>& inputs, const std::vector<void*>& outputs, const std::string& port) {
    for (const bool at_once : {true, false}) {
      const Error error = thrown([&] { at_once ? context.run(inputs, outputs) : context.enqueue(inputs, outputs); });
      EXPECT_EQ(error.code(), ErrorCode::invalid_argument);
      EXPECT_NE(error.message().find(port + " is given as a null pointer, expected memory of "), std::string::npos) << error.what();
    }
  };
  for (std::size_t i = 0; i < call.inputs.size(); ++i) {
    std::vector<const void*> inputs = call.inputs;
    inputs[i] = nullptr;
    expect_refused(inputs, to, "input '" + engine.inputs()[i].name + "'");
  }
  for (std::size_t i = 0; i < to.size(); ++i) {
    std::vector<void*> outputs = to;
    outputs[i] = nullptr;
    expect_refused(call.inputs, outputs, "output '" + engine.outputs()[i].name + "'");
  }
  context.run(call.inputs, to);  // as if nothing had been
}

TEST(ContextMemory, NothingMayBeNull) {
  Network network;
  network.output("y", network.add("Relu", {network.input("x", DType::f32, {0, 4})}));
  Context context(build(network));
  const void* const inputs[] = {nullptr};
  void* const outputs[] = {nullptr};
  EXPECT_NO_THROW(context.run(inputs, outputs));
}

TEST(ContextMemory, NoKernelOfTheCpuUsesAuxiliaryStreams) {
  Context context(bert());
  EXPECT_EQ(context.auxiliary_streams(), 0);
  EXPECT_EQ(bert().auxiliary_streams(), 0);
  context.set_auxiliary_streams({});
  void* const one[] = {nullptr};
  const Error error = thrown([&] { context.set_auxiliary_streams(one); });
  EXPECT_EQ(error.code(), ErrorCode::invalid_argument);
  EXPECT_NE(error.message().find("1 auxiliary streams are given, the kernels use 0 at most"), std::string::npos) << error.what();
}

}  // namespace
}  // namespace tandem
