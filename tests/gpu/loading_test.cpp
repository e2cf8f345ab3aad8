// Loading many weights: beside somebody's recording, and the memory that it takes. Needs a GPU: without one every test is skipped and says
// so.
#include <cuda_runtime.h>
#include <gtest/gtest.h>

#include <atomic>
#include <thread>

#include "gpu/chain.h"
#include "gpu/here.h"

namespace tandem {
namespace {

using testing::chain;

void cuda(cudaError_t status) { ASSERT_EQ(status, cudaSuccess) << cudaGetErrorString(status); }

class LoadingOnGpu : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!testing::has_gpu()) GTEST_SKIP() << "this machine has no GPU";
  }
};

// So many bytes are brought by threads of their own; the strictest mode forbids those too what may allocate.
TEST_F(LoadingOnGpu, ManyWeightsDoNotDisturbTheRecordingOfAnotherThread) {
  const Engine engine = chain(1, 5120, 1, DType::f32);  // 105 MB
  std::atomic<bool> begun{false}, loaded{false};
  std::thread other([&] {
    cudaStream_t stream = nullptr;
    cudaGraph_t graph = nullptr;
    cuda(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
    cuda(cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal));
    begun = true;
    while (!loaded) std::this_thread::yield();
    cuda(cudaStreamEndCapture(stream, &graph));
    cuda(cudaGraphDestroy(graph));
    cuda(cudaStreamDestroy(stream));
  });
  while (!begun) std::this_thread::yield();
  std::vector<float> y(5120);
  const Array x = testing::random_array(DType::f32, {1, 5120}, 3, 1);
  const void* const inputs[] = {x.data.get()};
  void* const outputs[] = {y.data()};
  EXPECT_NO_THROW({
    Context context(engine);
    context.run(inputs, outputs);
  });
  loaded = true;
  other.join();
}

}  // namespace
}  // namespace tandem
