// Thousands of calls: the same bits each time, no memory that grows, and an end. Needs a GPU: without one every test is skipped and says
// so.
#include <map>

#include "gpu/trouble.h"

namespace tandem {
namespace {

using namespace testing;

class GpuSoak : public GpuTrouble {};

std::size_t free_bytes() {
  std::size_t free = 0, total = 0;
  cuda(cudaMemGetInfo(&free, &total));
  return free;
}

constexpr std::size_t kGrowth = 8 << 20;  // what drivers may keep for themselves

// Two recordings in turn, of other inputs and outputs, on a stream of the caller's.
TEST_F(GpuSoak, TenThousandReplays) {
  constexpr int kCalls = 10000;
  cudaStream_t stream = nullptr;
  cuda(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
  {
    Mlp mlp;
    const std::size_t bytes = mlp.wanted.size() * sizeof(float);
    const Buffer in[] = {Buffer(mlp.input.size_bytes()), Buffer(mlp.input.size_bytes())}, out[] = {Buffer(bytes), Buffer(bytes)};
    std::vector<float> inputs[2], first[2], got(mlp.wanted.size());
    for (int i = 0; i < 2; ++i) {
      inputs[i].resize(mlp.input.size_bytes() / sizeof(float));
      std::memcpy(inputs[i].data(), mlp.input.data.get(), mlp.input.size_bytes());
      if (i == 1)
        for (float& x : inputs[i]) x = -x;
      cuda(cudaMemcpy(in[i].data, inputs[i].data(), mlp.input.size_bytes(), cudaMemcpyDefault));
    }
    cuda(cudaDeviceSynchronize());
    std::size_t free = 0;
    for (int call = 0; call < kCalls; ++call) {
      const int i = call % 2;
      const void* const from[] = {in[i].data};
      void* const to[] = {out[i].data};
      cuda(cudaMemsetAsync(out[i].data, 0xff, bytes, stream));
      mlp.context.enqueue(from, to, stream);
      cuda(cudaMemcpyAsync(got.data(), out[i].data, bytes, cudaMemcpyDefault, stream));
      cuda(cudaStreamSynchronize(stream));
      if (call < 2) first[i] = got;
      ASSERT_EQ(std::memcmp(got.data(), first[i].data(), bytes), 0) << "call " << call;
      if (call == 100) free = free_bytes();
    }
    for (std::size_t n = 0; n < got.size(); ++n) EXPECT_NEAR(first[0][n], mlp.wanted[n], 1e-4) << n;
    EXPECT_NE(first[0], first[1]);
    EXPECT_GE(free_bytes() + kGrowth, free);
  }  // context and recordings go
  cuda(cudaStreamDestroy(stream));
  Mlp after;
  after.run(after.context);
}

// More shapes than a context keeps prepared, and more addresses of each than it keeps recordings of.
TEST_F(GpuSoak, ShapesAndAddressesInTurn) {
  constexpr int kRounds = 60;
  BuildOptions options;
  options.shapes["input_ids"] = "1x4:2x8:4x16";
  const Engine engine = engine_of("bert_dynamo", options);
  const Arrays arrays = engine.random_inputs(3);
  std::vector<std::unique_ptr<Buffer>> inputs;
  std::vector<const void*> from;
  for (const Port& port : engine.inputs()) {
    const Array& array = arrays.at(port.name);
    from.push_back(inputs.emplace_back(std::make_unique<Buffer>(array.size_bytes()))->data);
    cuda(cudaMemcpy(inputs.back()->data, array.data.get(), array.size_bytes(), cudaMemcpyDefault));
  }
  constexpr std::size_t kRoom = 1 << 20;
  std::vector<std::unique_ptr<Buffer>> room;
  for (std::size_t n = 0; n < 12 * engine.outputs().size(); ++n) room.push_back(std::make_unique<Buffer>(kRoom));
  cuda(cudaDeviceSynchronize());
  Context context(engine);
  std::map<Shape, std::vector<std::string>> first;
  std::size_t free = 0;
  for (int round = 0; round < kRounds; ++round) {
    for (const Shape& shape : {Shape{1, 4}, Shape{2, 8}, Shape{1, 5}, Shape{2, 7}, Shape{1, 6}, Shape{2, 4}}) {
      for (std::size_t i = 0; i < from.size(); ++i) context.set_input_shape(i, shape);
      std::vector<void*> to;
      for (std::size_t o = 0; o < engine.outputs().size(); ++o)
        to.push_back(room[static_cast<std::size_t>(round) % 12 * engine.outputs().size() + o]->data);
      context.enqueue(from, to);
      context.synchronize();
      std::vector<std::string> got;
      for (std::size_t o = 0; o < to.size(); ++o) {
        got.emplace_back(Array{engine.outputs()[o].dtype, context.output_shape(o), nullptr}.size_bytes(), '\0');
        ASSERT_LE(got.back().size(), kRoom);
        cuda(cudaMemcpy(got.back().data(), to[o], got.back().size(), cudaMemcpyDefault));
      }
      const auto [known, is_new] = first.try_emplace(shape, got);
      ASSERT_TRUE(is_new || known->second == got) << "round " << round;
    }
    if (round == 12) free = free_bytes();
  }
  EXPECT_GE(free_bytes() + kGrowth, free);
}

}  // namespace
}  // namespace tandem
