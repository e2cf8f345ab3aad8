// What attention's kernels write beside their results, the logarithm of each row's sum of exponentials, against sums in double precision.
// Needs a GPU: without one every test is skipped and says so.
#include <cuda_runtime.h>
#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "core/tensor.h"
#include "device/cuda/library.h"
#include "gpu/here.h"
#include "ops/attention/attention_cuda.h"
#include "ops/attention/cudnn_attention_cuda.h"

namespace tandem {
namespace {

void cuda_ok(cudaError_t status) { ASSERT_EQ(status, cudaSuccess) << cudaGetErrorString(status); }

struct OnDevice {
  explicit OnDevice(std::size_t size) : bytes(size) {
    cuda_ok(cudaMalloc(&data, bytes));
    cuda_ok(cudaMemset(data, 0xff, bytes));
  }
  explicit OnDevice(const Tensor& t) : OnDevice(t.size_bytes()) { cuda_ok(cudaMemcpy(data, t.data(), bytes, cudaMemcpyDefault)); }
  ~OnDevice() { cudaFree(data); }
  OnDevice(const OnDevice&) = delete;
  void* data = nullptr;
  std::size_t bytes;
};

struct Case {
  DType type;
  int batch, heads, kv_heads, rows, columns, size;
  bool causal;  // lower right: row i attends to columns j ≤ i + columns − rows, of which the first row may have none
};

Tensor values(DType type, std::int64_t count, int seed) {
  std::vector<double> x;
  for (std::int64_t i = 0; i < count; ++i) x.push_back(std::sin(static_cast<double>(i * 7919 % 104729 + seed * 31)));
  return Tensor::of(type, {count}, x);
}

struct Inputs {
  explicit Inputs(const Case& c)
      : q(values(c.type, std::int64_t{c.batch} * c.heads * c.rows * c.size, 1)),
        k(values(c.type, std::int64_t{c.batch} * c.kv_heads * c.columns * c.size, 2)),
        v(values(c.type, k.count(), 3)) {}
  Tensor q, k, v;
};

constexpr double kScale = 0.3;

std::vector<double> wanted_lse(const Case& c, const Inputs& in) {
  std::vector<double> lse;
  for (int line = 0; line < c.batch * c.heads * c.rows; ++line) {
    const int row = line % c.rows, head = line / c.rows % c.heads, batch = line / c.rows / c.heads;
    const std::int64_t k_first = (std::int64_t{batch} * c.kv_heads + head / (c.heads / c.kv_heads)) * c.columns * c.size;
    double sum = 0;
    for (int j = 0; j < (c.causal ? std::min(c.columns, row + c.columns - c.rows + 1) : c.columns); ++j) {
      double score = 0;
      for (int d = 0; d < c.size; ++d) score += in.q.at(std::int64_t{line} * c.size + d) * in.k.at(k_first + std::int64_t{j} * c.size + d);
      sum += std::exp(kScale * score);
    }
    lse.push_back(std::log(sum));
  }
  return lse;
}

cuda::AttentionSteps steps(int heads, int rows, int size) { return {std::int64_t{heads} * rows * size, std::int64_t{rows} * size, size}; }

class AttentionLse : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!testing::has_gpu()) GTEST_SKIP() << "this machine has no GPU";
    cuda_ok(cudaDeviceGetAttribute(&limits_.multiprocessors, cudaDevAttrMultiProcessorCount, 0));
    cuda_ok(cudaDeviceGetAttribute(&limits_.shared_bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, 0));
  }

  // `work(run)` launches on the default stream.
  template <typename Work>
  void expect_lse(const Case& c, const Work& work) {
    const Inputs in(c);
    const OnDevice q(in.q), k(in.k), v(in.v), out(in.q.size_bytes()),
        lse(static_cast<std::size_t>(c.batch * c.heads * c.rows) * sizeof(float));
    cuda::AttentionRun run{};
    run.type = c.type;
    run.batch = c.batch, run.heads = c.heads, run.kv_heads = c.kv_heads, run.rows = c.rows, run.columns = c.columns;
    run.size = run.value_size = c.size;
    run.q = q.data, run.k = k.data, run.v = v.data, run.out = out.data, run.lse = static_cast<float*>(lse.data);
    run.q_steps = run.out_steps = steps(c.heads, c.rows, c.size);
    run.k_steps = run.v_steps = steps(c.kv_heads, c.columns, c.size);
    run.causal = c.causal;
    run.diagonal = c.causal ? c.columns - c.rows : 0;
    run.scale = static_cast<float>(kScale);
    work(run);
    cuda_ok(cudaDeviceSynchronize());
    const std::vector<double> wanted = wanted_lse(c, in);
    std::vector<float> got(wanted.size());
    cuda_ok(cudaMemcpy(got.data(), lse.data, lse.bytes, cudaMemcpyDefault));
    for (std::size_t i = 0; i < wanted.size(); ++i) {
      if (std::isinf(wanted[i])) ASSERT_EQ(got[i], wanted[i]) << "line " << i;
      else ASSERT_NEAR(got[i], wanted[i], 2e-5 * std::max(1.0, std::fabs(wanted[i]))) << "line " << i;
    }
  }

  cuda::DeviceLimits limits_{};
};

const Case kCases[] = {{DType::f32, 2, 4, 2, 37, 75, 20, true},     {DType::f32, 1, 3, 3, 2, 900, 64, false},
                       {DType::f16, 2, 4, 1, 70, 68, 64, true},     {DType::bf16, 1, 6, 2, 200, 331, 128, true},
                       {DType::bf16, 2, 8, 8, 300, 300, 72, false}, {DType::bf16, 1, 8, 2, 3, 1000, 128, true},
                       {DType::f16, 2, 4, 2, 1, 700, 64, false}};

TEST_F(AttentionLse, OfThePlainKernelWithAndWithoutParts) {
  for (const Case& c : kCases)
    for (const int parts : {1, 3})
      expect_lse(c, [&](const cuda::AttentionRun& run) {
        const OnDevice memory(std::max<std::size_t>(cuda::attention_parts_bytes(run, parts), 8));
        cuda_ok(cuda::prepare_plain_attention(run));
        cuda::launch_plain_attention(run, cuda::attention_parts_in(run, parts, memory.data), nullptr);
        cuda_ok(cudaDeviceSynchronize());
      });
}

TEST_F(AttentionLse, OfTheKernelsOnTensorCores) {
  int whole = 0, decoded = 0;
  for (const Case& c : kCases)
    expect_lse(c, [&](const cuda::AttentionRun& run) {
      const int parts = cuda::decode_attention_parts(run, limits_);
      const OnDevice memory(cuda::attention_parts_bytes(run, parts));
      if (cuda::takes_decode_attention(run, limits_)) {
        ++decoded;
        cuda::launch_decode_attention(run, cuda::attention_parts_in(run, parts, memory.data), nullptr);
      } else if (cuda::takes_tensor_attention(run, limits_)) {
        ++whole;
        cuda_ok(cuda::prepare_tensor_attention(run, limits_));
        cuda::launch_tensor_attention(run, limits_, nullptr);
      } else {
        cuda_ok(cuda::prepare_plain_attention(run));
        cuda::launch_plain_attention(run, {.count = 1, .lines = nullptr, .sums = nullptr}, nullptr);
      }
      cuda_ok(cudaDeviceSynchronize());
    });
  EXPECT_GE(whole, 2);
  EXPECT_GE(decoded, 2);
}

TEST_F(AttentionLse, OfCudnn) {
  if (std::string why; !cuda::find_library(cuda::Which::cudnn, &why)) GTEST_SKIP() << why;
  for (const bool causal : {false, true})
    expect_lse({DType::bf16, 2, 6, 2, 200, 328, 128, causal}, [&](const cuda::AttentionRun& run) {
      using Causal = cuda::CudnnAttentionShape::Causal;
      const auto steps_of = [](const cuda::AttentionSteps& s) { return attention::Steps{s.batch, s.head, s.row}; };
      const cuda::CudnnAttention attention({.dtype = run.type,
                                            .batch = run.batch,
                                            .heads = run.heads,
                                            .kv_heads = run.kv_heads,
                                            .rows = run.rows,
                                            .columns = run.columns,
                                            .size = run.size,
                                            .value_size = run.value_size,
                                            .q = steps_of(run.q_steps),
                                            .k = steps_of(run.k_steps),
                                            .v = steps_of(run.v_steps),
                                            .out = steps_of(run.out_steps),
                                            .causal = causal ? Causal::lower_right : Causal::none,
                                            .scale = run.scale,
                                            .lse = true},
                                           0);
      const OnDevice workspace(std::max<std::size_t>(attention.workspace_bytes(), 1));
      attention.run(run.q, run.k, run.v, run.out, run.lse, workspace.data, nullptr);
      cuda_ok(cudaDeviceSynchronize());
    });
}

}  // namespace
}  // namespace tandem
