// tandem/tensorrt.h: what it refuses, what it says of engines, models from files. Numbers on several ranks: examples/tensorrt.
#include "tandem/tensorrt.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <fstream>
#include <functional>

#include "support/thrown.h"

namespace nvinfer1 {
namespace {

using tandem::testing::thrown;

class Heard : public ILogger {
 public:
  void log(Severity severity, const char* message) noexcept override { messages.emplace_back(severity, message); }
  std::vector<std::pair<Severity, std::string>> messages;
};

template <typename T>
std::unique_ptr<T> owned(T* object) {
  return std::unique_ptr<T>(object);
}

bool says(const tandem::Error& error, const std::string& words) { return std::string(error.what()).find(words) != std::string::npos; }

class TensorRt : public ::testing::Test {
 protected:
  std::unique_ptr<ICudaEngine> engine_of(INetworkDefinition& network) {
    const auto plan = owned(builder->buildSerializedNetwork(network, *config));
    return owned(runtime->deserializeCudaEngine(plan->data(), plan->size()));
  }
  // y = reduction of x [2,3] over `ranks`.
  std::unique_ptr<ICudaEngine> reducing(int ranks) {
    const auto network = owned(builder->createNetworkV2(0));
    auto* layer = network->addDistCollective(*network->addInput("x", DataType::kFLOAT, Dims2(2, 3)), CollectiveOperation::kALL_REDUCE,
                                             ReduceOperation::kSUM, -1, nullptr, 0);
    layer->setNbRanks(ranks);
    layer->getOutput(0)->setName("y");
    network->markOutput(*layer->getOutput(0));
    return engine_of(*network);
  }
  Heard logger;
  std::unique_ptr<IBuilder> builder = owned(createInferBuilder(logger));
  std::unique_ptr<IBuilderConfig> config = owned(builder->createBuilderConfig());
  std::unique_ptr<IRuntime> runtime = owned(createInferRuntime(logger));
};

TEST_F(TensorRt, WeightStreamingIsForGpus) {
  config->set_device("cpu");
  config->setFlag(BuilderFlag::kWEIGHT_STREAMING);
  EXPECT_TRUE(config->getFlag(BuilderFlag::kWEIGHT_STREAMING));
  const auto engine = reducing(1);
  EXPECT_THROW(engine->getStreamableWeightsSize(), tandem::Error);
  EXPECT_THROW(engine->setWeightStreamingBudgetV2(1 << 20), tandem::Error);
  EXPECT_THROW(engine->getWeightStreamingBudgetV2(), tandem::Error);
  EXPECT_THROW(engine->getWeightStreamingAutomaticBudget(), tandem::Error);
  EXPECT_THROW(engine->getWeightStreamingScratchMemorySize(), tandem::Error);
}

TEST_F(TensorRt, LayersOfOneRank) {
  const auto network = owned(builder->createNetworkV2(1U << static_cast<std::uint32_t>(NetworkDefinitionCreationFlag::kSTRONGLY_TYPED)));
  auto* x = network->addInput("x", DataType::kFLOAT, Dims2(-1, 2));
  const std::vector<float> weights = {1, 2, 3, 4, 5, 6};
  auto* w = network->addConstant(Dims2(3, 2), Weights{DataType::kFLOAT, weights.data(), 6});
  auto* product = network->addMatrixMultiply(*x, MatrixOperation::kNONE, *w->getOutput(0), MatrixOperation::kTRANSPOSE);
  auto* sum = network->addElementWise(*product->getOutput(0), *product->getOutput(0), ElementWiseOperation::kSUM);
  auto* relu = network->addActivation(*sum->getOutput(0), ActivationType::kRELU);
  auto* shuffle = network->addShuffle(*network->addIdentity(*relu->getOutput(0))->getOutput(0));
  EXPECT_EQ(shuffle->getOutput(0)->getDimensions().d[0], -1);
  shuffle->setReshapeDimensions(Dims3(0, 1, -1));
  EXPECT_EQ(shuffle->getOutput(0)->getDimensions().nbDims, 3);
  EXPECT_EQ(shuffle->getOutput(0)->getDimensions().d[2], 3);
  EXPECT_EQ(shuffle->getOutput(0)->getType(), DataType::kFLOAT);
  network->markOutput(*shuffle->getOutput(0));
  auto* profile = builder->createOptimizationProfile();
  profile->setDimensions("x", OptProfileSelector::kMIN, Dims2(1, 2));
  profile->setDimensions("x", OptProfileSelector::kOPT, Dims2(2, 2));
  profile->setDimensions("x", OptProfileSelector::kMAX, Dims2(5, 2));
  config->addOptimizationProfile(profile);
  config->setMemoryPoolLimit(MemoryPoolType::kWORKSPACE, 1 << 20);
  const auto engine = engine_of(*network);
  EXPECT_EQ(engine->getNbIOTensors(), 2);
  EXPECT_STREQ(engine->getIOTensorName(0), "x");
  EXPECT_EQ(engine->getIOTensorName(2), nullptr);
  EXPECT_EQ(engine->getTensorIOMode("x"), TensorIOMode::kINPUT);
  EXPECT_EQ(engine->getTensorShape("x").d[0], -1);
  EXPECT_EQ(engine->getProfileShape("x", 0, OptProfileSelector::kMAX).d[0], 5);
  const char* out = engine->getIOTensorName(1);
  const auto context = owned(engine->createExecutionContext());
  std::vector<float> in = {1, 1, -1, 0}, got(6, -1);
  context->setTensorAddress("x", in.data());
  context->setTensorAddress(out, got.data());
  EXPECT_TRUE(says(thrown([&] { context->enqueueV3(nullptr); }), "no shape was set for 'x'"));
  EXPECT_TRUE(says(thrown([&] { context->setInputShape("x", Dims2(2, 3)); }), "cannot be [2,3]"));
  context->setInputShape("x", Dims2(2, 2));
  EXPECT_EQ(context->getTensorShape(out).d[0], 2);
  EXPECT_TRUE(context->enqueueV3(nullptr));
  EXPECT_EQ(got, (std::vector<float>{6, 14, 22, 0, 0, 0}));
}

TEST_F(TensorRt, SeveralProfiles) {
  const auto network = owned(builder->createNetworkV2(0));
  auto* x = network->addInput("x", DataType::kFLOAT, Dims2(-1, 2));
  auto* sum = network->addElementWise(*x, *x, ElementWiseOperation::kSUM);
  sum->getOutput(0)->setName("y");
  network->markOutput(*sum->getOutput(0));
  EXPECT_TRUE(says(thrown([&] { config->addOptimizationProfile(nullptr); }), "null"));
  const std::int64_t rows[2][3] = {{1, 1, 2}, {2, 8, 9}};
  for (int p = 0; p < 2; ++p) {
    auto* profile = builder->createOptimizationProfile();
    for (const auto select : {OptProfileSelector::kMIN, OptProfileSelector::kOPT, OptProfileSelector::kMAX})
      profile->setDimensions("x", select, Dims2(rows[p][static_cast<int>(select)], 2));
    EXPECT_EQ(config->addOptimizationProfile(profile), p);
  }
  EXPECT_EQ(config->getNbOptimizationProfiles(), 2);
  const auto engine = engine_of(*network);
  ASSERT_EQ(engine->getNbOptimizationProfiles(), 2);
  for (int p = 0; p < 2; ++p)
    for (const char* name : {"x", "y"})
      for (const auto select : {OptProfileSelector::kMIN, OptProfileSelector::kOPT, OptProfileSelector::kMAX})
        EXPECT_EQ(engine->getProfileShape(name, p, select).d[0], rows[p][static_cast<int>(select)]) << name << p;
  EXPECT_TRUE(says(thrown([&] { engine->getProfileShape("x", 2, OptProfileSelector::kMAX); }), "profile 2"));
  EXPECT_LE(engine->getDeviceMemorySizeForProfileV2(0), engine->getDeviceMemorySizeV2());
  EXPECT_EQ(engine->getDeviceMemorySizeForProfileV2(1), engine->getDeviceMemorySizeV2());
  const auto context = owned(engine->createExecutionContext());
  std::vector<float> in(18, 1.5f), got(18, -1);
  context->setTensorAddress("x", in.data());
  context->setTensorAddress("y", got.data());
  const auto run = [&](std::int64_t count) {
    std::fill(got.begin(), got.end(), -1.0f);
    context->setInputShape("x", Dims2(count, 2));
    EXPECT_TRUE(context->enqueueV3(nullptr));
    EXPECT_EQ(std::count(got.begin(), got.end(), 3.0f), 2 * count);
  };
  EXPECT_EQ(context->getOptimizationProfile(), 0);
  run(1);
  EXPECT_TRUE(says(thrown([&] { run(5); }), "profile 1 would"));
  EXPECT_TRUE(context->setOptimizationProfileAsync(1, nullptr));
  run(5);
  EXPECT_TRUE(says(thrown([&] { run(1); }), "profile 0 would"));
  for (const int wrong : {-1, 2})
    EXPECT_TRUE(says(thrown([&] { context->setOptimizationProfileAsync(wrong, nullptr); }), "there is no optimization profile"));
  EXPECT_EQ(context->getOptimizationProfile(), 1);
  const auto fresh = owned(engine->createExecutionContext());  // chosen before its first use
  fresh->setOptimizationProfileAsync(1, nullptr);
  fresh->setTensorAddress("x", in.data());
  fresh->setTensorAddress("y", got.data());
  fresh->setInputShape("x", Dims2(9, 2));
  EXPECT_TRUE(fresh->enqueueV3(nullptr));
  EXPECT_EQ(got, std::vector<float>(18, 3.0f));
}

TEST_F(TensorRt, RanksOfLayers) {
  const auto network = owned(builder->createNetworkV2(0));
  auto* x = network->addInput("x", DataType::kFLOAT, Dims2(4, 3));
  auto* gather = network->addDistCollective(*x, CollectiveOperation::kALL_GATHER, ReduceOperation::kNONE, -1, nullptr, 0);
  EXPECT_EQ(gather->getOutput(0)->getDimensions().d[0], 4);
  gather->setNbRanks(2);
  EXPECT_EQ(gather->getOutput(0)->getDimensions().d[0], 8);
  EXPECT_EQ(gather->getNbRanks(), 2);
  EXPECT_TRUE(says(thrown([&] { gather->setNbRanks(4); }), "cannot be changed"));
  EXPECT_TRUE(says(thrown([&] { gather->setNbRanks(0); }), "from 1"));
  EXPECT_EQ(thrown([&] { network->addIdentity(*x)->setNbRanks(2); }).code(), tandem::ErrorCode::unsupported);
  EXPECT_TRUE(
      says(thrown([&] { network->addDistCollective(*x, CollectiveOperation::kALL_REDUCE, ReduceOperation::kNONE, -1, nullptr, 0); }),
           "reduces"));
  EXPECT_TRUE(says(thrown([&] { network->addDistCollective(*x, CollectiveOperation::kALL_GATHER, ReduceOperation::kSUM, -1, nullptr, 0); }),
                   "reduces nothing"));
  const std::int64_t group[] = {1, 0};
  EXPECT_TRUE(says(thrown([&] { network->addDistCollective(*x, CollectiveOperation::kBROADCAST, ReduceOperation::kNONE, 2, group, 2); }),
                   "no rank of its group"));
  const auto other = owned(builder->createNetworkV2(0));
  EXPECT_TRUE(says(thrown([&] { other->addIdentity(*x); }), "another network"));
  EXPECT_TRUE(says(thrown([&] { engine_of(*other); }), "no outputs"));
  EXPECT_FALSE(logger.messages.empty());
}

TEST_F(TensorRt, PreviewFeatureSwitchedOff) {
  EXPECT_TRUE(config->getPreviewFeature(PreviewFeature::kMULTIDEVICE_RUNTIME_10_16));
  config->setPreviewFeature(PreviewFeature::kMULTIDEVICE_RUNTIME_10_16, false);
  EXPECT_FALSE(config->getPreviewFeature(PreviewFeature::kMULTIDEVICE_RUNTIME_10_16));
  EXPECT_TRUE(says(thrown([&] { reducing(2); }), "kMULTIDEVICE_RUNTIME_10_16 was switched off"));
  EXPECT_NE(reducing(1), nullptr);  // has nothing to exchange
  config->setPreviewFeature(PreviewFeature::kMULTIDEVICE_RUNTIME_10_16, true);
  EXPECT_NE(reducing(2), nullptr);
}

TEST_F(TensorRt, GroupsBeforeTheirRanks) {
  const auto network = owned(builder->createNetworkV2(0));
  auto* x = network->addInput("x", DataType::kFLOAT, Dims2(4, 3));
  const std::int64_t group[] = {1, 0};
  auto* gather = network->addDistCollective(*x, CollectiveOperation::kALL_GATHER, ReduceOperation::kNONE, -1, group, 2);
  EXPECT_EQ(gather->getOutput(0)->getDimensions().d[0], 4);  // the identity as yet
  network->markOutput(*gather->getOutput(0));
  EXPECT_TRUE(says(thrown([&] { engine_of(*network); }), "its group has 2 ranks"));
  gather->setNbRanks(2);
  EXPECT_EQ(gather->getOutput(0)->getDimensions().d[0], 8);
  network->lowered();
}

// softmax(q kᵀ) v of one head in double, without a factor; which keys a query may see is `allowed`.
std::vector<double> attended(const std::vector<float>& q, const std::vector<float>& k, const std::vector<float>& v, std::size_t size,
                             const std::function<bool(std::size_t query, std::size_t key)>& allowed) {
  std::vector<double> out(q.size(), 0);
  for (std::size_t i = 0; i < q.size() / size; ++i) {
    std::vector<double> weights;
    double sum = 0;
    for (std::size_t j = 0; j < k.size() / size; ++j) {
      double score = 0;
      for (std::size_t d = 0; d < size; ++d) score += static_cast<double>(q[i * size + d]) * k[j * size + d];
      sum += weights.emplace_back(allowed(i, j) ? std::exp(score) : 0);
    }
    for (std::size_t j = 0; j < weights.size(); ++j)
      for (std::size_t d = 0; d < size; ++d) out[i * size + d] += weights[j] / sum * v[j * size + d];
  }
  return out;
}

TEST_F(TensorRt, AttentionOfEveryCausalKindAndWithAMask) {
  constexpr std::size_t kQueries = 3, kKeys = 5, kSize = 4;
  const auto ramp = [](std::size_t count, float step) {
    std::vector<float> numbers(count);
    for (std::size_t i = 0; i < count; ++i) numbers[i] = std::sin(step * static_cast<float>(i));
    return numbers;
  };
  std::vector<float> q = ramp(kQueries * kSize, 0.7f), k = ramp(kKeys * kSize, 0.3f), v = ramp(kKeys * kSize, 1.1f), out(q.size());
  // Booleans as TensorRT has them: one byte each.
  std::vector<std::uint8_t> mask = {1, 0, 1, 0, 0, 1, 1, 1, 1, 1, 0, 0, 0, 0, 1};
  const auto check = [&](CausalMaskKind kind, bool masked, const std::function<bool(std::size_t, std::size_t)>& allowed) {
    const auto network = owned(builder->createNetworkV2(0));
    const auto input = [&](const char* name, std::int64_t rows) {
      return network->addInput(name, DataType::kFLOAT, Dims4(1, 1, rows, kSize));
    };
    auto* query = input("q", kQueries);
    auto* key = input("k", kKeys);
    auto* layer = network->addAttentionV2(*query, *key, *input("v", kKeys), AttentionNormalizationOp::kSOFTMAX, kind);
    if (masked) layer->setMask(*network->addInput("mask", DataType::kBOOL, Dims4(1, 1, kQueries, kKeys)));
    layer->getOutput(0)->setName("y");
    network->markOutput(*layer->getOutput(0));
    const auto engine = engine_of(*network);
    const auto context = owned(engine->createExecutionContext());
    context->setTensorAddress("q", q.data());
    context->setTensorAddress("k", k.data());
    context->setTensorAddress("v", v.data());
    context->setTensorAddress("y", out.data());
    if (masked) context->setTensorAddress("mask", mask.data());
    ASSERT_TRUE(context->enqueueV3(nullptr));
    const std::vector<double> expected = attended(q, k, v, kSize, allowed);
    for (std::size_t i = 0; i < out.size(); ++i) EXPECT_NEAR(out[i], expected[i], 1e-5) << static_cast<int>(kind) << " " << i;
  };
  check(CausalMaskKind::kNONE, false, [](std::size_t, std::size_t) { return true; });
  check(CausalMaskKind::kUPPER_LEFT, false, [](std::size_t i, std::size_t j) { return j <= i; });
  check(CausalMaskKind::kLOWER_RIGHT, false, [](std::size_t i, std::size_t j) { return j <= i + (kKeys - kQueries); });
  check(CausalMaskKind::kNONE, true, [&](std::size_t i, std::size_t j) { return mask[i * kKeys + j] != 0; });
}

TEST_F(TensorRt, WhatAttentionRefuses) {
  const auto network = owned(builder->createNetworkV2(0));
  auto* x = network->addInput("x", DataType::kFLOAT, Dims4(1, 1, 3, 4));
  const auto attention = [&](AttentionNormalizationOp norm, CausalMaskKind kind) {
    return network->addAttentionV2(*x, *x, *x, norm, kind);
  };
  EXPECT_EQ(thrown([&] { attention(AttentionNormalizationOp::kNONE, CausalMaskKind::kNONE); }).code(), tandem::ErrorCode::unsupported);
  auto* layer = attention(AttentionNormalizationOp::kSOFTMAX, CausalMaskKind::kUPPER_LEFT);
  for (const int ranks : {0, -1}) EXPECT_TRUE(says(thrown([&] { layer->setNbRanks(ranks); }), "from 1"));
  layer->setNbRanks(2);
  EXPECT_TRUE(says(thrown([&] { layer->setNbRanks(1); }), "cannot be changed"));
  const auto other = owned(builder->createNetworkV2(0));
  EXPECT_TRUE(says(thrown([&] { layer->setMask(*other->addInput("mask", DataType::kBOOL, Dims4(1, 1, 3, 3))); }), "another network"));
  layer->setMask(*network->addInput("mask", DataType::kBOOL, Dims4(1, 1, 3, 3)));
  EXPECT_TRUE(says(thrown([&] { layer->getOutput(0)->getDimensions(); }), "exclude each other"));
}

TEST_F(TensorRt, Communicators) {
  const auto engine = reducing(2);
  const auto context = owned(engine->createExecutionContext());
  EXPECT_EQ(context->num_ranks(), 2);
  std::vector<float> in(6, 1), out(6, 0);
  context->setInputTensorAddress("x", in.data());
  EXPECT_TRUE(says(thrown([&] { context->enqueueV3(nullptr); }), "no address was set for 'y'"));
  context->setTensorAddress("y", out.data());
  EXPECT_TRUE(says(thrown([&] { context->enqueueV3(nullptr); }), "setCommunicator"));
  EXPECT_EQ(out, std::vector<float>(6, 0));
  auto three = tandem::Group::in_process(3);
  EXPECT_EQ(thrown([&] { context->setCommunicator(std::shared_ptr<tandem::Group>(std::move(three[0]))); }).code(),
            tandem::ErrorCode::mismatch);
  void* nccl = &in;
  EXPECT_EQ(thrown([&] { context->setCommunicator(nccl); }).code(), tandem::ErrorCode::unsupported);
  EXPECT_EQ(thrown([&] { context->enqueueV3(reinterpret_cast<cudaStream_t>(8)); }).code(), tandem::ErrorCode::unsupported);

  const auto alone = reducing(1);
  const auto single = owned(alone->createExecutionContext());
  logger.messages.clear();
  EXPECT_TRUE(single->setCommunicator(std::shared_ptr<tandem::Group>(std::move(three[1]))));
  ASSERT_EQ(logger.messages.size(), 1u);
  EXPECT_EQ(logger.messages[0].first, ILogger::Severity::kWARNING);
  single->setTensorAddress("x", in.data());
  single->setTensorAddress("y", out.data());
  EXPECT_TRUE(single->enqueueV3(nullptr));
  EXPECT_EQ(out, in);
}

class Pool : public IGpuAllocator {
 public:
  void* allocate(std::uint64_t size, std::uint64_t alignment, AllocatorFlags) noexcept override {
    ++given;
    return std::aligned_alloc(alignment, (size + alignment - 1) / alignment * alignment);
  }
  bool deallocate(void* memory) noexcept override {
    ++taken;
    std::free(memory);
    return true;
  }
  int given = 0, taken = 0;
};

TEST_F(TensorRt, DeviceMemoryOfTheUser) {
  const auto network = owned(builder->createNetworkV2(0));
  auto* x = network->addInput("x", DataType::kFLOAT, Dims2(2, 3));
  auto* product = network->addMatrixMultiply(*x, MatrixOperation::kTRANSPOSE, *x, MatrixOperation::kNONE);
  auto* again = network->addMatrixMultiply(*product->getOutput(0), MatrixOperation::kNONE, *product->getOutput(0), MatrixOperation::kNONE);
  again->getOutput(0)->setName("y");
  network->markOutput(*again->getOutput(0));
  Pool pool;
  runtime->setGpuAllocator(&pool);
  const auto engine = engine_of(*network);
  std::vector<float> in = {1, 0, 2, 0, 1, 1}, first(9, -1), second(9, -1);
  {
    const auto context = owned(engine->createExecutionContext());
    context->setTensorAddress("x", in.data());
    context->setTensorAddress("y", first.data());
    EXPECT_TRUE(context->enqueueV3(nullptr));
    EXPECT_EQ(pool.given, 1);
    EXPECT_EQ(thrown([&] { context->setTemporaryStorageAllocator(nullptr); }).code(), tandem::ErrorCode::invalid_argument);
  }
  EXPECT_EQ(pool.taken, 1);
  EXPECT_EQ(first, (std::vector<float>{5, 2, 12, 2, 2, 6, 12, 6, 30}));

  const auto context = owned(engine->createExecutionContextWithoutDeviceMemory());
  context->setTensorAddress("x", in.data());
  context->setTensorAddress("y", second.data());
  const tandem::Error none = thrown([&] { context->enqueueV3(nullptr); });
  EXPECT_EQ(none.code(), tandem::ErrorCode::out_of_memory);
  EXPECT_TRUE(says(none, "setDeviceMemoryV2"));
  const std::int64_t bytes = engine->getDeviceMemorySizeV2();
  EXPECT_EQ(context->updateDeviceMemorySizeForShapes(), static_cast<std::size_t>(bytes));
  void* memory = pool.allocate(static_cast<std::uint64_t>(bytes), 256, 0);
  EXPECT_EQ(thrown([&] { context->setDeviceMemoryV2(memory, bytes - 1); }).code(), tandem::ErrorCode::out_of_memory);
  EXPECT_TRUE(context->setDeviceMemoryV2(memory, bytes));
  EXPECT_TRUE(context->enqueueV3(nullptr));
  EXPECT_EQ(second, first);
  EXPECT_EQ(pool.given, 2);
  pool.deallocate(memory);
}

class Outputs : public IOutputAllocator, public IProfiler {
 public:
  void* reallocateOutputAsync(const char* name, void* current, std::uint64_t size, std::uint64_t, cudaStream_t) override {
    asked = std::string(name) + (current ? " again" : "");
    values.assign(size / sizeof(float), -1);
    return values.data();
  }
  void notifyShape(const char*, const Dims& dims) noexcept override { shape = tandem::to_string(shape_of(dims)); }
  void reportLayerTime(const char* name, float ms) noexcept override {
    layers.emplace_back(name);
    EXPECT_GE(ms, 0);
  }
  std::string asked, shape;
  std::vector<float> values;
  std::vector<std::string> layers;
};

TEST_F(TensorRt, OutputsAndTimesAreTakenWhenTheyAre) {
  const auto network = owned(builder->createNetworkV2(0));
  auto* x = network->addInput("x", DataType::kFLOAT, Dims2(-1, 2));
  auto* sum = network->addElementWise(*x, *x, ElementWiseOperation::kSUM);
  sum->getOutput(0)->setName("y");
  network->markOutput(*sum->getOutput(0));
  const auto engine = engine_of(*network);
  EXPECT_EQ(engine->getNbAuxStreams(), 0);
  const auto context = owned(engine->createExecutionContext());
  std::vector<float> in = {1, 2, 3, 4};
  Outputs user;
  context->setTensorAddress("x", in.data());
  context->setInputShape("x", Dims2(2, 2));
  EXPECT_EQ(thrown([&] { context->setOutputAllocator("x", &user); }).code(), tandem::ErrorCode::invalid_argument);
  context->setOutputAllocator("y", &user);
  context->setProfiler(&user);
  EXPECT_TRUE(context->enqueueV3(nullptr));
  EXPECT_EQ(user.asked, "y");
  EXPECT_EQ(user.shape, "[2,2]");
  EXPECT_EQ(user.values, (std::vector<float>{2, 4, 6, 8}));
  EXPECT_EQ(user.layers.size(), 1u);
  context->setInputShape("x", Dims2(1, 2));
  context->setProfiler(nullptr);
  EXPECT_TRUE(context->enqueueV3(nullptr));
  EXPECT_EQ(user.shape, "[1,2]");
  EXPECT_EQ(user.layers.size(), 1u);
  context->setOutputAllocator("y", nullptr);
  EXPECT_TRUE(says(thrown([&] { context->enqueueV3(nullptr); }), "no address was set for 'y'"));
  EXPECT_EQ(thrown([&] { context->setInputConsumedEvent(reinterpret_cast<cudaEvent_t>(8)); }).code(), tandem::ErrorCode::unsupported);
}

TEST_F(TensorRt, ExtentsThatDependOnDataAreToldWhenTheyAreMeasured) {
  tandem::Network network;
  const auto x = network.input("x", tandem::DType::f32, {"B", 2});
  network.output("y", network.add("GatherND", {x, network.add("Transpose", {network.add_all("NonZero", {x})[0]},
                                                              {{"permutation", std::vector<std::int64_t>{1, 0}}})}));
  const ICudaEngine engine(tandem::build(network), logger);
  EXPECT_EQ(engine.getTensorShape("y").d[0], -1);
  const auto context = owned(const_cast<ICudaEngine&>(engine).createExecutionContext());
  EXPECT_EQ(context->getMaxOutputSize("y"), -1);
  std::vector<float> in = {1, 0, 3, 4};
  Outputs user;
  context->setInputShape("x", Dims2(2, 2));
  EXPECT_EQ(context->getMaxOutputSize("y"), 16);
  EXPECT_EQ(context->getMaxOutputSize("x"), -1);
  context->setTensorAddress("x", in.data());
  context->setOutputAllocator("y", &user);
  EXPECT_TRUE(context->enqueueV3(nullptr));
  EXPECT_EQ(user.shape, "[3]");
  EXPECT_EQ(user.values, (std::vector<float>{1, 3, 4, user.values[3]}));
  EXPECT_EQ(context->getTensorShape("y").d[0], -1);
  std::vector<float> room(4, -1);
  context->setOutputAllocator("y", nullptr);
  context->setTensorAddress("y", room.data());
  EXPECT_TRUE(context->enqueueV3(nullptr));
  EXPECT_EQ(std::vector<float>(room.begin(), room.begin() + 3), (std::vector<float>{1, 3, 4}));
}

TEST_F(TensorRt, Tf32IsNotSetFromTheStart) {
  EXPECT_FALSE(config->getFlag(BuilderFlag::kTF32));
  config->set_device("cpu");
  for (const bool asked : {false, true}) {
    if (asked) config->setFlag(BuilderFlag::kTF32);
    const auto network = owned(builder->createNetworkV2(0));
    auto* x = network->addInput("x", DataType::kFLOAT, Dims2(2, 2));
    network->markOutput(*network->addMatrixMultiply(*x, MatrixOperation::kNONE, *x, MatrixOperation::kNONE)->getOutput(0));
    const auto plan = owned(builder->buildSerializedNetwork(*network, *config));
    const auto* bytes = static_cast<const std::byte*>(plan->data());
    const tandem::Engine engine =
        tandem::load_engine(tandem::Array{tandem::DType::u8,
                                          {static_cast<std::int64_t>(plan->size())},
                                          std::shared_ptr<std::byte>(const_cast<std::byte*>(bytes), [](std::byte*) {})});
    EXPECT_EQ(engine.describe().find("\"options\":\"tf32\"") != std::string::npos, asked);
    EXPECT_EQ(engine.notices().size(), asked ? 1u : 0u);  // of CPU ranks
  }
}

TEST_F(TensorRt, AuxiliaryStreams) {
  EXPECT_EQ(config->getMaxAuxStreams(), -1);
  config->setMaxAuxStreams(0);
  config->set_device("cpu");
  const auto engine = reducing(1);
  EXPECT_EQ(engine->getNbAuxStreams(), 0);
  const auto context = owned(engine->createExecutionContext());
  cudaStream_t none[] = {nullptr, nullptr};
  context->setAuxStreams(none, 2);  // beyond those in use, and so left alone
  context->setAuxStreams(nullptr, 0);
  EXPECT_TRUE(says(thrown([&] { context->setAuxStreams(nullptr, 1); }), "1 auxiliary streams are given at no address"));
  EXPECT_TRUE(says(thrown([&] { context->setAuxStreams(none, -1); }), "-1 auxiliary streams"));
}

TEST_F(TensorRt, Bytes) {
  EXPECT_EQ(thrown([&] { runtime->deserializeCudaEngine("no engine", 9); }).code(), tandem::ErrorCode::invalid_engine);
  ASSERT_EQ(logger.messages.size(), 1u);
  EXPECT_EQ(logger.messages[0].first, ILogger::Severity::kERROR);
  config->setFlag(BuilderFlag::kSTRIP_PLAN);
  const auto network = owned(builder->createNetworkV2(0));
  const std::vector<float> weights(16, 1);
  auto* w = network->addConstant(Dims2(4, 4), Weights{DataType::kFLOAT, weights.data(), 16});
  network->markOutput(*network
                           ->addMatrixMultiply(*network->addInput("x", DataType::kFLOAT, Dims2(1, 4)), MatrixOperation::kNONE,
                                               *w->getOutput(0), MatrixOperation::kNONE)
                           ->getOutput(0));
  const auto engine = engine_of(*network);
  EXPECT_TRUE(engine->isRefittable());
  EXPECT_TRUE(says(thrown([&] { engine->createExecutionContext(); }), "kSTRIP_PLAN"));
}

TEST_F(TensorRt, Parser) {
  const std::string path = std::string(TANDEM_MODELS) + "/mlp_dynamo.onnx";
  std::ifstream file(path, std::ios::binary);
  const std::string bytes((std::istreambuf_iterator<char>(file)), {});
  for (const bool from_file : {true, false}) {
    const auto network = owned(builder->createNetworkV2(0));
    const auto parser = owned(nvonnxparser::createParser(*network, logger));
    ASSERT_TRUE(from_file ? parser->parseFromFile(path.c_str()) : parser->parse(bytes.data(), bytes.size(), path.c_str()));
    EXPECT_EQ(network->getNbInputs(), 1);
    EXPECT_STREQ(network->getInput(0)->getName(), "x");
    EXPECT_TRUE(network->getInput(0)->isNetworkInput());
    EXPECT_EQ(network->getOutput(0)->getDimensions().nbDims, 2);
    EXPECT_EQ(engine_of(*network)->getNbIOTensors(), 2);
  }
  const auto network = owned(builder->createNetworkV2(0));
  const auto parser = owned(nvonnxparser::createParser(*network, logger));
  EXPECT_FALSE(parser->parse("nothing", 7));
  ASSERT_EQ(parser->getNbErrors(), 1);
  EXPECT_NE(parser->getError(0)->code(), nvonnxparser::ErrorCode::kSUCCESS);
  EXPECT_NE(std::string(parser->getError(0)->desc()), "");
  EXPECT_EQ(parser->getError(1), nullptr);
}

}  // namespace
}  // namespace nvinfer1
