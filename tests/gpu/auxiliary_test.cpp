// Auxiliary streams: those of the caller's beside attention over ranks, each rank a thread with a GPU of its own. Needs two GPUs but for
// what is refused before anything runs: with fewer, tests are skipped and say so.
#include <cuda_runtime.h>
#include <gtest/gtest.h>

#include <cmath>
#include <map>

#include "comm/ranks.h"
#include "core/check.h"
#include "core/half.h"
#include "gpu/gpu_ranks.h"
#include "support/thrown.h"
#include "tandem/tandem.h"

namespace tandem::test {
namespace {

using testing::thrown;

constexpr std::int64_t kLength = 8192, kHeads = 8, kSize = 128;
constexpr int kRanks = 2;

double number(std::int64_t i) { return static_cast<double>(i * 7919 % 1021 - 510) / 512; }

// Of q (0), k or v, as rows of packed heads.
double element(std::int64_t row, std::int64_t part, std::int64_t head, std::int64_t d) {
  return bf16_to_float(float_to_bf16(static_cast<float>(number(((row * 3 + part) * kHeads + head) * kSize + d))));
}

// Attention of a packed [1, length, 3, heads, size], its rows split over the ranks, by the kernel that is named.
Engine attention(const std::string& form, bool causal) {
  Network network(fmt::format("cp={}", kRanks));
  const Network::Value qkv = network.input("qkv", DType::bf16, {1, kLength, 3, kHeads, kSize}, "1:cp");
  std::vector<Network::Value> operands;
  for (std::int64_t i = 0; i < 3; ++i) {
    const Network::Value part =
        network.add("Slice", {qkv}, {{"axes", std::vector<std::int64_t>{2}}, {"starts", Extents{i}}, {"ends", Extents{i + 1}}});
    const Network::Value rows = network.add("Reshape", {part}, {{"shape", Extents{1, kLength / kRanks, kHeads, kSize}}});
    operands.push_back(network.add("Transpose", {rows}, {{"permutation", std::vector<std::int64_t>{0, 2, 1, 3}}}));
  }
  AttentionOptions options{.causal = causal ? "upper_left" : "none", .axis = "cp"};
  const Network::Value out = network.attention(operands[0], operands[1], operands[2], options);
  network.output("out", network.add("Transpose", {out}, {{"permutation", std::vector<std::int64_t>{0, 2, 1, 3}}}), "1:cp");
  return build(network, {.device = "cuda", .kernels = {"cuda_attention_" + form, "cuda_flat_attention_" + form}});
}

// The rank's part in memory of its GPU, and streams of the caller's.
struct Caller {
  explicit Caller(int rank) : rank(rank), gpu(rank) {
    check(cudaSetDevice(rank) == cudaSuccess, "there is a GPU for the rank");
    std::vector<std::uint16_t> values(static_cast<std::size_t>(kLength / kRanks * 3 * kHeads * kSize));
    const std::int64_t first = rank * static_cast<std::int64_t>(values.size());
    for (std::size_t i = 0; i < values.size(); ++i)
      values[i] = float_to_bf16(static_cast<float>(number(first + static_cast<std::int64_t>(i))));
    in = gpu.allocate(values.size() * 2);
    out = gpu.allocate(static_cast<std::size_t>(kCount) * 2);
    for (cudaStream_t& stream : streams)
      check(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking) == cudaSuccess, "streams can be made");
    gpu.copy(in.get(), values.data(), values.size() * 2);
    gpu.synchronize();
  }
  ~Caller() {
    for (const cudaStream_t stream : streams) cudaStreamDestroy(stream);
  }
  // Runs on the first stream into memory that was poisoned.
  void run(Context& context) {
    gpu.copy(out.get(), std::vector<std::byte>(static_cast<std::size_t>(kCount) * 2, std::byte{0x7f}).data(),
             static_cast<std::size_t>(kCount) * 2, streams[0]);
    const void* const ins[] = {in.get()};
    void* const outs[] = {out.get()};
    context.enqueue(ins, outs, streams[0]);
    context.synchronize();
  }
  // The largest error over a few rows, by loops in double.
  double error(bool causal) {
    std::vector<std::uint16_t> got(static_cast<std::size_t>(kCount));
    gpu.copy(got.data(), out.get(), got.size() * 2);
    gpu.synchronize();
    double worst = 0;
    for (const std::int64_t mine : {std::int64_t{0}, kLength / kRanks / 3, kLength / kRanks - 1}) {
      const std::int64_t row = rank * kLength / kRanks + mine, head = mine % kHeads, columns = causal ? row + 1 : kLength;
      std::vector<double> weights;
      double total = 0;
      for (std::int64_t j = 0; j < columns; ++j) {
        double score = 0;
        for (std::int64_t d = 0; d < kSize; ++d) score += element(row, 0, head, d) * element(j, 1, head, d);
        weights.push_back(std::exp(score / std::sqrt(static_cast<double>(kSize))));
        total += weights.back();
      }
      for (std::int64_t d = 0; d < kSize; ++d) {
        double sum = 0;
        for (std::int64_t j = 0; j < columns; ++j) sum += weights[static_cast<std::size_t>(j)] * element(j, 2, head, d);
        const double error = std::fabs(sum / total - bf16_to_float(got[static_cast<std::size_t>((mine * kHeads + head) * kSize + d)]));
        if (!(error <= worst)) worst = error;
      }
    }
    return worst;
  }

  static constexpr std::int64_t kCount = kLength / kRanks * kHeads * kSize;
  int rank;
  Gpu gpu;
  std::shared_ptr<std::byte> in, out;
  cudaStream_t streams[4] = {};  // the first for the work itself
};

void expect_right(Caller& caller, bool causal, const std::string& what) {
  const double error = caller.error(causal);
  EXPECT_LE(error, 2e-2) << what << " on rank " << caller.rank;
}

// Needs no GPU.
TEST(AuxiliaryStreamsOnGpus, EnginesSayHowManyTheyUse) {
  for (const auto& [form, count] :
       std::map<std::string, int>{{"all_to_all", 2}, {"all_gather_groups", 1}, {"all_gather", 0}, {"ring", 1}}) {
    const Engine engine = attention(form, false);
    EXPECT_EQ(engine.auxiliary_streams(), count) << form;
    EXPECT_NE(engine.describe().find(fmt::format("\"auxiliary_streams\":{}", count)), std::string::npos) << form;
  }
}

class AuxiliaryStreamsOnGpus : public ::testing::TestWithParam<std::tuple<const char*, bool>> {};

// Run at once, recorded, replayed; then with other streams, and with the context's own again.
TEST_P(AuxiliaryStreamsOnGpus, ServeAttention) {
  if (gpu_count() < kRanks) GTEST_SKIP() << "this machine has " << gpu_count() << " GPUs, two are needed";
  const auto& [form, causal] = GetParam();
  const Engine engine = attention(form, causal);
  run_ranks(kRanks, [&, causal = causal](Group& group) {
    Caller caller(group.rank());
    Context context(engine, {.rank = group.rank()});
    context.set_communicator(std::shared_ptr<Group>(&group, [](Group*) {}));
    context.prepare();
    const auto count = static_cast<std::size_t>(context.auxiliary_streams());
    void* const lent[] = {caller.streams[1], caller.streams[2]};
    void* const turned[] = {caller.streams[2], caller.streams[3]};
    const std::span<void* const> choices[] = {std::span(lent).first(count), std::span(turned).first(count), {}};
    for (std::size_t i = 0; i < std::size(choices); ++i) {
      context.set_auxiliary_streams(choices[i]);
      for (int round = 0; round < 3; ++round) {
        caller.run(context);
        expect_right(caller, causal, fmt::format("{} with streams {} in round {}", form, i, round));
      }
    }
    group.exchange({});  // nobody leaves while others are in their last call
  });
}

INSTANTIATE_TEST_SUITE_P(Forms, AuxiliaryStreamsOnGpus,
                         ::testing::Combine(::testing::Values("all_to_all", "all_gather_groups", "ring"), ::testing::Bool()));

// What only a run can see. Both ranks are refused, and run as before after it.
TEST(AuxiliaryStreamsOnGpus, ARunWhoseStreamIsAmongThemIsRefused) {
  if (gpu_count() < kRanks) GTEST_SKIP() << "this machine has " << gpu_count() << " GPUs, two are needed";
  const Engine engine = attention("ring", false);
  run_ranks(kRanks, [&](Group& group) {
    Caller caller(group.rank());
    Context context(engine, {.rank = group.rank()});
    context.set_communicator(std::shared_ptr<Group>(&group, [](Group*) {}));
    context.prepare();
    void* const own[] = {caller.streams[0]};
    context.set_auxiliary_streams(own);
    const Error same = thrown([&] { caller.run(context); });
    EXPECT_EQ(same.code(), ErrorCode::invalid_argument);
    EXPECT_NE(same.message().find("auxiliary stream 0 is the stream that the work is given to"), std::string::npos) << same.what();
    void* const other[] = {caller.streams[1]};
    context.set_auxiliary_streams(other);
    check(cudaStreamBeginCapture(caller.streams[1], cudaStreamCaptureModeThreadLocal) == cudaSuccess, "a recording begins");
    const Error recorded = thrown([&] { caller.run(context); });
    EXPECT_NE(recorded.message().find("auxiliary stream 0 is being recorded"), std::string::npos) << recorded.what();
    cudaGraph_t graph = nullptr;
    check(cudaStreamEndCapture(caller.streams[1], &graph) == cudaSuccess, "the recording goes on");
    cudaGraphDestroy(graph);
    group.exchange({});
    caller.run(context);
    expect_right(caller, false, "after what was refused");
    group.exchange({});
  });
}

TEST(AuxiliaryStreamsOnGpus, OnesThatCannotServeAreRefused) {
  const int gpus = gpu_count();
  if (gpus < 1) GTEST_SKIP() << "this machine has no GPU";
  Context context(attention("ring", false), {.rank = 0});
  ASSERT_EQ(context.auxiliary_streams(), 1);
  check(cudaSetDevice(0) == cudaSuccess, "there is a GPU");
  cudaStream_t stream = nullptr, far = nullptr;
  check(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking) == cudaSuccess, "a stream can be made");
  const auto expect_refused = [&](std::vector<void*> streams, const std::string& words) {
    const Error error = thrown([&] { context.set_auxiliary_streams(streams); });
    EXPECT_EQ(error.code(), ErrorCode::invalid_argument);
    EXPECT_NE(error.message().find(words), std::string::npos) << error.what();
  };
  expect_refused({stream, nullptr}, "2 auxiliary streams are given, the kernels use 1 at most");
  expect_refused({cudaStreamLegacy}, "is the default stream");
  void* const one[] = {stream};
  context.set_auxiliary_streams(one);
  if (gpus > 1) {
    check(cudaSetDevice(1) == cudaSuccess && cudaStreamCreate(&far) == cudaSuccess, "a stream of another GPU can be made");
    expect_refused({far}, "the stream is of GPU 1, the engine runs on GPU 0");
    cudaStreamDestroy(far);
    check(cudaSetDevice(0) == cudaSuccess, "back");
  }
  context.set_auxiliary_streams({});
  cudaStreamDestroy(stream);
}

}  // namespace
}  // namespace tandem::test
