// Multi-device attention through TensorRT's C++ names: each rank holds a part of the sequence and gets the result for it.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <memory>
#include <vector>

#include "ranks.h"
#include "tandem/tensorrt.h"

using namespace nvinfer1;

namespace {

constexpr int numGpus = 2, kHeads = 2, kRows = 5, kSize = 8;  // rows of the sequence on each rank

class Logger : public ILogger {
  void log(Severity severity, const char* message) noexcept override {
    if (severity <= Severity::kERROR) std::fprintf(stderr, "%s\n", message);
  }
} logger;

// Element of q (0), k (1) or v (2) for a position of the whole sequence.
float element(int which, int head, int position, int i) { return std::sin(static_cast<float>(1 + which + 3 * head + 7 * position + 11 * i)); }

// softmax(q·kᵀ)·v over the positions begin … end, without a factor, in double.
double expected(int head, int position, int i, int begin, int end) {
  std::vector<double> scores;
  for (int key = begin; key < end; ++key) {
    double score = 0;
    for (int d = 0; d < kSize; ++d) score += static_cast<double>(element(0, head, position, d)) * static_cast<double>(element(1, head, key, d));
    scores.push_back(score);
  }
  const double most = *std::max_element(scores.begin(), scores.end());
  double sum = 0, total = 0;
  for (int key = begin; key < end; ++key) {
    const double weight = std::exp(scores[static_cast<std::size_t>(key - begin)] - most);
    total += weight;
    sum += weight * static_cast<double>(element(2, head, key, i));
  }
  return sum / total;
}

std::unique_ptr<IHostMemory> build(bool multi_device) {
  auto builder = std::unique_ptr<IBuilder>(createInferBuilder(logger));
  auto network = std::unique_ptr<INetworkDefinition>(builder->createNetworkV2(0));
  const Dims4 dims(1, kHeads, kRows, kSize);
  auto& query = *network->addInput("query", DataType::kFLOAT, dims);
  auto& key = *network->addInput("key", DataType::kFLOAT, dims);
  auto& value = *network->addInput("value", DataType::kFLOAT, dims);
  // Add attention layer and set number of ranks
  auto attention = network->addAttentionV2(query, key, value, AttentionNormalizationOp::kSOFTMAX, CausalMaskKind::kNONE);
  if (multi_device)
    attention->setNbRanks(numGpus);
  network->markOutput(*attention->getOutput(0));
  auto config = std::unique_ptr<IBuilderConfig>(builder->createBuilderConfig());
  return std::unique_ptr<IHostMemory>(builder->buildSerializedNetwork(*network, *config));
}

int run(const IHostMemory& plan, bool multi_device, int rank, ncclComm_t ncclComm) {
  const cudaStream_t stream = nullptr;
  auto runtime = std::unique_ptr<IRuntime>(createInferRuntime(logger));
  auto engine = std::unique_ptr<ICudaEngine>(runtime->deserializeCudaEngine(plan.data(), plan.size()));
  auto context = std::unique_ptr<IExecutionContext>(engine->createExecutionContext());
  constexpr int kCount = kHeads * kRows * kSize;
  std::vector<float> tensors[4];
  for (int which = 0; which < 4; ++which) {
    for (int n = 0; n < kCount; ++n)
      tensors[which].push_back(which < 3 ? element(which, n / kSize / kRows, rank * kRows + n / kSize % kRows, n % kSize) : NAN);
    context->setTensorAddress(engine->getIOTensorName(which), tensors[which].data());
  }

  // At runtime, on each rank, set communicator and run inference
  context->setCommunicator(ncclComm);
  context->enqueueV3(stream);

  double error = 0;
  for (int n = 0; n < kCount; ++n) {
    const int head = n / kSize / kRows, position = rank * kRows + n / kSize % kRows;
    const double right = multi_device ? expected(head, position, n % kSize, 0, numGpus * kRows) : expected(head, position, n % kSize, rank * kRows, (rank + 1) * kRows);
    error = std::max(error, std::isnan(tensors[3][static_cast<std::size_t>(n)]) ? INFINITY : std::abs(right - static_cast<double>(tensors[3][static_cast<std::size_t>(n)])));
  }
  std::printf("rank %d, %s: largest error %.1e\n", rank, multi_device ? "attending to all ranks" : "by itself, as without setNbRanks", error);
  return error <= 1e-5 ? 0 : 1;
}

}  // namespace

int main() {
  for (const bool multi_device : {true, false}) {
    const auto plan = build(multi_device);
    if (run_ranks(numGpus, [&](int rank, ncclComm_t comm) { return run(*plan, multi_device, rank, std::move(comm)); }) != 0) return 1;
  }
}
