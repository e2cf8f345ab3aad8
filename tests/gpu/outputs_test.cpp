// Memory of outputs that the caller gives when a run asks for it, on a GPU. Needs one: without it every test is skipped and says so.
#include <map>

#include "gpu/trouble.h"

namespace tandem {
namespace {

using namespace testing;

class OutputsOnGpu : public GpuTrouble {};

// Gives other memory each time, in the order of the stream.
class Outputs final : public OutputAllocator {
 public:
  void* reallocate(std::size_t output, void* current, std::size_t bytes, void* stream) override {
    EXPECT_EQ(output, 0u);
    EXPECT_EQ(current, nullptr);
    asked_in = stream;
    if (refuses) return nullptr;
    given.push_back(std::make_unique<Buffer>(bytes));
    cuda(cudaMemsetAsync(given.back()->data, 0xff, bytes, static_cast<cudaStream_t>(stream)));
    return given.back()->data;
  }
  void notify_shape(std::size_t, const Shape& of) override { shape = of; }
  std::vector<std::unique_ptr<Buffer>> given;
  void* asked_in = nullptr;
  Shape shape;
  bool refuses = false;
};

TEST_F(OutputsOnGpu, AreWrittenToWhatTheAllocatorGives) {
  Mlp mlp;
  const Buffer in(mlp.input.size_bytes());
  cuda(cudaMemcpy(in.data, mlp.input.data.get(), mlp.input.size_bytes(), cudaMemcpyDefault));
  cuda(cudaDeviceSynchronize());
  cudaStream_t stream = nullptr;
  cuda(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
  const auto outputs = std::make_shared<Outputs>();
  mlp.context.set_output_allocator(0, outputs);
  const void* const from[] = {in.data};
  void* const to[] = {nullptr};
  for (std::size_t call = 1; call <= 4; ++call) {
    mlp.context.enqueue(from, to, stream);
    ASSERT_EQ(outputs->given.size(), call);
    EXPECT_EQ(outputs->asked_in, stream);
    EXPECT_EQ(outputs->shape, mlp.context.output_shape(0));
    std::vector<float> got(mlp.wanted.size());
    cuda(cudaMemcpyAsync(got.data(), outputs->given.back()->data, got.size() * sizeof(float), cudaMemcpyDefault, stream));
    cuda(cudaStreamSynchronize(stream));
    for (std::size_t i = 0; i < got.size(); ++i) ASSERT_NEAR(got[i], mlp.wanted[i], 1e-4) << call << " " << i;
  }
  outputs->refuses = true;
  EXPECT_EQ(thrown([&] { mlp.context.enqueue(from, to, stream); }).code(), ErrorCode::out_of_memory);
  mlp.context.set_output_allocator(0, nullptr);
  mlp.run(mlp.context);
  cuda(cudaStreamDestroy(stream));
}

}  // namespace
}  // namespace tandem
