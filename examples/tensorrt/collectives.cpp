// The eight collectives of TensorRT's multi-device inference between transpositions, on two ranks, their numbers checked.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <memory>
#include <string>
#include <vector>

#include "ranks.h"
#include "tandem/tensorrt.h"

using namespace nvinfer1;

namespace {

constexpr int numGpus = 2, kRows = 3, kColumns = 4;

class Logger : public ILogger {
  void log(Severity severity, const char* message) noexcept override {
    if (severity <= Severity::kWARNING) std::fprintf(stderr, "%s\n", message);
  }
} logger;

struct Case {
  const char* name;
  CollectiveOperation operation;
  ReduceOperation reduce;
  int root;
};
constexpr Case kCases[] = {
    {"all_reduce", CollectiveOperation::kALL_REDUCE, ReduceOperation::kSUM, -1},
    {"all_gather", CollectiveOperation::kALL_GATHER, ReduceOperation::kNONE, -1},
    {"broadcast", CollectiveOperation::kBROADCAST, ReduceOperation::kNONE, 1},
    {"reduce", CollectiveOperation::kREDUCE, ReduceOperation::kSUM, 0},
    {"reduce_scatter", CollectiveOperation::kREDUCE_SCATTER, ReduceOperation::kMAX, -1},
    {"all_to_all", CollectiveOperation::kALL_TO_ALL, ReduceOperation::kNONE, -1},
    {"gather", CollectiveOperation::kGATHER, ReduceOperation::kNONE, 1},
    {"scatter", CollectiveOperation::kSCATTER, ReduceOperation::kNONE, 0},
};

float value(int rank, int row, int column) { return static_cast<float>(100 * rank + kColumns * row + column); }

// What rank `rank` gets as [kRows, columns]: the collective works on dimension 0 of the transposed input, that is on columns.
float expected(const Case& c, int rank, int row, int column) {
  const int half = kColumns / numGpus;
  const int from = column / kColumns, in = column % kColumns;  // of results that hold every rank's columns
  switch (c.operation) {
    case CollectiveOperation::kALL_REDUCE: return value(0, row, column) + value(1, row, column);
    case CollectiveOperation::kALL_GATHER: return value(from, row, in);
    case CollectiveOperation::kBROADCAST: return value(c.root, row, column);
    case CollectiveOperation::kREDUCE: return rank == c.root ? value(0, row, column) + value(1, row, column) : 0;
    case CollectiveOperation::kREDUCE_SCATTER: return value(1, row, rank * half + column);
    case CollectiveOperation::kALL_TO_ALL: return value(column / half, row, rank * half + column % half);
    case CollectiveOperation::kGATHER: return rank == c.root ? value(from, row, in) : 0;
    case CollectiveOperation::kSCATTER: return value(c.root, row, rank * half + column);
  }
  return NAN;
}

std::unique_ptr<IHostMemory> build(const Case& c) {
  auto builder = std::unique_ptr<IBuilder>(createInferBuilder(logger));
  auto network = std::unique_ptr<INetworkDefinition>(builder->createNetworkV2(1U << static_cast<std::uint32_t>(NetworkDefinitionCreationFlag::kSTRONGLY_TYPED)));
  auto* input = network->addInput("input", DataType::kFLOAT, Dims2{kRows, kColumns});
  auto* before = network->addShuffle(*input);
  before->setFirstTranspose({{1, 0}});
  auto* collectiveLayer = network->addDistCollective(*before->getOutput(0), c.operation, c.reduce, c.root, nullptr, 0);
  collectiveLayer->setNbRanks(numGpus);
  auto* after = network->addShuffle(*collectiveLayer->getOutput(0));
  after->setFirstTranspose({{1, 0}});
  network->markOutput(*after->getOutput(0));
  auto config = std::unique_ptr<IBuilderConfig>(builder->createBuilderConfig());
  config->setPreviewFeature(PreviewFeature::kMULTIDEVICE_RUNTIME_10_16, true);
  return std::unique_ptr<IHostMemory>(builder->buildSerializedNetwork(*network, *config));
}

// One rank of the serialized engine; 0 if its numbers are right.
int run(const Case& c, const IHostMemory& plan, int rank, ncclComm_t ncclComm) {
  const cudaStream_t stream = nullptr;
  auto runtime = std::unique_ptr<IRuntime>(createInferRuntime(logger));
  auto engine = std::unique_ptr<ICudaEngine>(runtime->deserializeCudaEngine(plan.data(), plan.size()));
  auto context = std::unique_ptr<IExecutionContext>(engine->createExecutionContext());
  const char* output_name = engine->getIOTensorName(1);
  const int columns = static_cast<int>(engine->getTensorShape(output_name).d[1]);
  std::vector<float> in, out(static_cast<std::size_t>(kRows * columns), NAN);
  for (int i = 0; i < kRows * kColumns; ++i) in.push_back(value(rank, i / kColumns, i % kColumns));
  context->setInputTensorAddress("input", in.data());
  context->setTensorAddress(output_name, out.data());
  context->setInputShape("input", Dims2{kRows, kColumns});

  context->setCommunicator(ncclComm);
  context->enqueueV3(stream);

  for (int i = 0; i < kRows * columns; ++i)
    if (out[static_cast<std::size_t>(i)] != expected(c, rank, i / columns, i % columns)) {
      std::printf("%s: rank %d, element %d is %g, expected %g\n", c.name, rank, i, static_cast<double>(out[static_cast<std::size_t>(i)]), static_cast<double>(expected(c, rank, i / columns, i % columns)));
      return 1;
    }
  return 0;
}

}  // namespace

int main() {
  for (const Case& c : kCases) {
    const auto plan = build(c);
    if (run_ranks(numGpus, [&](int rank, ncclComm_t comm) { return run(c, *plan, rank, std::move(comm)); }) != 0) return 1;
    std::printf("%s: right on %d ranks\n", c.name, numGpus);
  }
}
