// The lines of TensorRT's documents with a communicator of NCCL and a stream, as a program on a GPU runs them. Skipped, with the reason,
// where there is no GPU or no NCCL.
#include <cuda_runtime.h>
#include <gtest/gtest.h>

#include <numeric>
#include <vector>

#include "device/cuda/library.h"
#include "tandem/tensorrt.h"

using namespace nvinfer1;

namespace {

using ncclComm_t = void*;

class Logger : public ILogger {
 public:
  void log(Severity severity, const char* message) noexcept override {
    if (severity == Severity::kWARNING) warnings.emplace_back(message);
  }
  std::vector<std::string> warnings;
};

void cuda(cudaError_t status) { ASSERT_EQ(status, cudaSuccess) << cudaGetErrorString(status); }

class TensorRtOnGpu : public ::testing::Test {
 protected:
  void SetUp() override {
    if (tandem::gpu_count() == 0) GTEST_SKIP() << "this machine has no GPU";
    cuda(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
  }
  void TearDown() override {
    if (stream) cudaStreamDestroy(stream);
  }

  // y = x + x, and with `collective` the sum of it over the ranks.
  std::unique_ptr<ICudaEngine> engine(bool collective, int numGpus = 1) {
    auto builder = std::unique_ptr<IBuilder>(createInferBuilder(logger));
    auto network = std::unique_ptr<INetworkDefinition>(builder->createNetworkV2(0));
    auto* x = network->addInput("x", DataType::kFLOAT, Dims2{2, 3});
    ITensor* y = network->addElementWise(*x, *x, ElementWiseOperation::kSUM)->getOutput(0);
    if (collective) {
      auto* collectiveLayer = network->addDistCollective(*y, CollectiveOperation::kALL_REDUCE, ReduceOperation::kSUM, -1, nullptr, 0);
      collectiveLayer->setNbRanks(numGpus);
      y = collectiveLayer->getOutput(0);
    }
    y->setName("y");
    network->markOutput(*y);
    auto config = std::unique_ptr<IBuilderConfig>(builder->createBuilderConfig());
    config->setDefaultDeviceType(DeviceType::kGPU);
    auto plan = std::unique_ptr<IHostMemory>(builder->buildSerializedNetwork(*network, *config));
    const auto runtime = std::unique_ptr<IRuntime>(createInferRuntime(logger));
    return std::unique_ptr<ICudaEngine>(runtime->deserializeCudaEngine(plan->data(), plan->size()));
  }

  Logger logger;
  cudaStream_t stream = nullptr;
};

struct OnDevice {
  explicit OnDevice(const std::vector<float>& values) {
    cuda(cudaMalloc(&data, sizeof(float) * values.size()));
    cuda(cudaMemcpy(data, values.data(), sizeof(float) * values.size(), cudaMemcpyHostToDevice));
    cuda(cudaDeviceSynchronize());
  }
  ~OnDevice() { cudaFree(data); }
  OnDevice(const OnDevice&) = delete;
  std::vector<float> fetch(std::size_t count) const {
    std::vector<float> values(count);
    cuda(cudaMemcpy(values.data(), data, sizeof(float) * count, cudaMemcpyDeviceToHost));
    return values;
  }
  void* data = nullptr;
};

const std::vector<float> kInput = {0, 1, 2, 3, 4, 5}, kDoubled = {0, 2, 4, 6, 8, 10};

TEST_F(TensorRtOnGpu, EnqueueOnAStreamOfTheCaller) {
  const auto made = engine(false);
  auto context = std::unique_ptr<IExecutionContext>(made->createExecutionContext());
  EXPECT_EQ(made->getTensorLocation("x"), TensorLocation::kDEVICE);
  const OnDevice in(kInput), out(std::vector<float>(6, -1));
  context->setInputTensorAddress("x", in.data);
  context->setTensorAddress("y", out.data);

  context->enqueueV3(stream);

  cuda(cudaStreamSynchronize(stream));
  EXPECT_EQ(out.fetch(6), kDoubled);
}

TEST_F(TensorRtOnGpu, EnqueueOnTheDefaultStream) {
  const auto made = engine(false);
  auto context = std::unique_ptr<IExecutionContext>(made->createExecutionContext());
  const OnDevice in(kInput), out(std::vector<float>(6, -1));
  context->setInputTensorAddress("x", in.data);
  context->setTensorAddress("y", out.data);
  for (int call = 0; call < 4; ++call) {  // one by one, recorded, replayed
    cuda(cudaMemsetAsync(out.data, 0xff, 24, nullptr));
    context->enqueueV3(nullptr);
    EXPECT_EQ(out.fetch(6), kDoubled);  // the copy is in the default stream's order
  }
}

TEST_F(TensorRtOnGpu, WithACommunicatorOfNccl) {
  std::string why;
  const tandem::cuda::Library* nccl = tandem::cuda::find_library(tandem::cuda::Which::nccl, &why);
  if (!nccl) GTEST_SKIP() << why;
  ncclComm_t ncclComm = nullptr;
  ASSERT_EQ(nccl->function<int(ncclComm_t*, int, const int*)>("ncclCommInitAll")(&ncclComm, 1, nullptr), 0);
  const auto made = engine(true);
  auto context = std::unique_ptr<IExecutionContext>(made->createExecutionContext());
  const OnDevice in(kInput), out(std::vector<float>(6, -1));
  context->setInputTensorAddress("x", in.data);
  context->setTensorAddress("y", out.data);

  // At runtime, on each rank, set communicator and run inference
  context->setCommunicator(ncclComm);
  context->enqueueV3(stream);

  cuda(cudaStreamSynchronize(stream));
  EXPECT_EQ(out.fetch(6), kDoubled);
  EXPECT_EQ(logger.warnings.size(), 1u);
  nccl->function<int(ncclComm_t)>("ncclCommDestroy")(ncclComm);
}

TEST_F(TensorRtOnGpu, WithWhatIsNoCommunicator) {
  const auto made = engine(true, 2);
  auto context = std::unique_ptr<IExecutionContext>(made->createExecutionContext());
  for (void* number : {reinterpret_cast<void*>(8), reinterpret_cast<void*>(1ull << 46)}) {  // where no process has memory
    try {
      context->setCommunicator(number);
      ADD_FAILURE() << number << " was taken";
    } catch (const tandem::Error& error) {
      EXPECT_EQ(error.code(), tandem::ErrorCode::invalid_argument) << error.what();
    }
  }
}

}  // namespace
