// What attention's kernels write: results, and the logarithm of each row's sum of exponentials, or both as numbers to be merged, against
// sums in double precision.
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

struct Wanted {
  std::vector<double> lse, out;  // by line, and by line and element; 0 where a line attends to nothing
};

Wanted wanted_of(const Case& c, const Inputs& in) {
  Wanted wanted;
  for (int line = 0; line < c.batch * c.heads * c.rows; ++line) {
    const int row = line % c.rows, head = line / c.rows % c.heads, batch = line / c.rows / c.heads;
    const std::int64_t first = (std::int64_t{batch} * c.kv_heads + head / (c.heads / c.kv_heads)) * c.columns * c.size;
    double sum = 0;
    std::vector<double> out(static_cast<std::size_t>(c.size), 0);
    for (int j = 0; j < (c.causal ? std::min(c.columns, row + c.columns - c.rows + 1) : c.columns); ++j) {
      double score = 0;
      for (int d = 0; d < c.size; ++d) score += in.q.at(std::int64_t{line} * c.size + d) * in.k.at(first + std::int64_t{j} * c.size + d);
      const double weight = std::exp(kScale * score);
      sum += weight;
      for (int d = 0; d < c.size; ++d) out[static_cast<std::size_t>(d)] += weight * in.v.at(first + std::int64_t{j} * c.size + d);
    }
    wanted.lse.push_back(std::log(sum));
    for (const double x : out) wanted.out.push_back(sum == 0 ? 0 : x / sum);
  }
  return wanted;
}

cuda::AttentionSteps steps(int heads, int rows, int size) { return {std::int64_t{heads} * rows * size, std::int64_t{rows} * size, size}; }

class AttentionLse : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!testing::has_gpu()) GTEST_SKIP() << "this machine has no GPU";
    cuda_ok(cudaDeviceGetAttribute(&limits_.multiprocessors, cudaDevAttrMultiProcessorCount, 0));
    cuda_ok(cudaDeviceGetAttribute(&limits_.shared_bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, 0));
    int major = 0;
    cuda_ok(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, 0));
    limits_.clusters = major >= 9;
  }

  // `work(run)` launches on the default stream.
  template <typename Work>
  void expect_right(const Case& c, const Work& work) {
    expect_right(c, Inputs(c), work);
  }

  template <typename Work>
  void expect_right(const Case& c, const Inputs& in, const Work& work) {
    expect_results(c, in, work);
    expect_sums(c, in, work);
  }

  template <typename Work>
  void expect_results(const Case& c, const Inputs& in, const Work& work) {
    const OnDevice q(in.q), k(in.k), v(in.v), out(in.q.size_bytes()),
        lse(static_cast<std::size_t>(c.batch * c.heads * c.rows) * sizeof(float));
    cuda::AttentionRun run{};
    run.out = out.data, run.lse = static_cast<float*>(lse.data);
    describe(c, q.data, k.data, v.data, run);
    work(run);
    cuda_ok(cudaDeviceSynchronize());
    const Wanted wanted = wanted_of(c, in);
    std::vector<float> got(wanted.lse.size());
    cuda_ok(cudaMemcpy(got.data(), lse.data, lse.bytes, cudaMemcpyDefault));
    for (std::size_t i = 0; i < got.size(); ++i) expect_lse(got[i], wanted.lse[i], i);
    Tensor results(c.type, {in.q.count()});
    cuda_ok(cudaMemcpy(results.mutable_data(), out.data, out.bytes, cudaMemcpyDefault));
    expect_values(c, results, wanted);
  }

  // The same as f32 numbers and, by line, the largest score and the sum of exponentials above it.
  template <typename Work>
  void expect_sums(const Case& c, const Inputs& in, const Work& work) {
    const Wanted wanted = wanted_of(c, in);
    const OnDevice q(in.q), k(in.k), v(in.v), sums(wanted.out.size() * sizeof(float)), lines(wanted.lse.size() * sizeof(float2));
    cuda::AttentionRun run{};
    run.sums = static_cast<float*>(sums.data), run.lines = static_cast<float2*>(lines.data);
    describe(c, q.data, k.data, v.data, run);
    work(run);
    cuda_ok(cudaDeviceSynchronize());
    std::vector<float2> got(wanted.lse.size());
    cuda_ok(cudaMemcpy(got.data(), lines.data, lines.bytes, cudaMemcpyDefault));
    for (std::size_t i = 0; i < got.size(); ++i) {
      ASSERT_TRUE(wanted.lse[i] != -INFINITY || got[i].y == 0) << "line " << i;
      expect_lse(got[i].x + std::log(got[i].y), wanted.lse[i], i);
    }
    Tensor results(DType::f32, {in.q.count()});
    cuda_ok(cudaMemcpy(results.mutable_data(), sums.data, sums.bytes, cudaMemcpyDefault));
    expect_values(c, results, wanted);
  }

  static void describe(const Case& c, const void* q, const void* k, const void* v, cuda::AttentionRun& run) {
    run.type = c.type;
    run.batch = c.batch, run.heads = c.heads, run.kv_heads = c.kv_heads, run.rows = c.rows, run.columns = c.columns;
    run.size = run.value_size = c.size;
    run.q = q, run.k = k, run.v = v;
    run.q_steps = run.out_steps = steps(c.heads, c.rows, c.size);
    run.k_steps = run.v_steps = steps(c.kv_heads, c.columns, c.size);
    run.causal = c.causal;
    run.diagonal = c.causal ? c.columns - c.rows : 0;
    run.scale = static_cast<float>(kScale);
  }

  static void expect_lse(float got, double wanted, std::size_t line) {
    if (wanted == -INFINITY) ASSERT_EQ(got, wanted) << "line " << line;
    else if (!std::isfinite(wanted)) ASSERT_FALSE(std::isfinite(got)) << "line " << line;
    else ASSERT_NEAR(got, wanted, 2e-5 * std::max(1.0, std::fabs(wanted))) << "line " << line;
  }

  static void expect_values(const Case& c, const Tensor& results, const Wanted& wanted) {
    const double tolerance = c.type == DType::f32 ? 1e-5 : c.type == DType::f16 ? 2e-3 : 1.5e-2;  // weights are rounded to the type
    for (std::int64_t i = 0; i < results.count(); ++i) {
      const double is = results.at(i), should = wanted.out[static_cast<std::size_t>(i)];
      SCOPED_TRACE(::testing::Message() << "line " << i / c.size << ", element " << i % c.size);
      if (std::isnan(should)) ASSERT_TRUE(std::isnan(is)) << is;
      else if (std::isinf(should)) ASSERT_EQ(is, should);
      else ASSERT_NEAR(is, should, tolerance);
    }
  }

  static void decode(const cuda::AttentionRun& run, const cuda::DecodeSplit& split) {
    const OnDevice memory(std::max<std::size_t>(cuda::attention_parts_bytes(run, split.parts), 8));
    const OnDevice arrived(static_cast<std::size_t>(cuda::decode_tasks(run)) * sizeof(unsigned));
    cuda_ok(cudaMemset(arrived.data, 0, arrived.bytes));
    for (int call = 0; call < 2; ++call)  // the second finds what the first leaves
      cuda::launch_decode_attention(run, split, cuda::attention_parts_in(run, split.parts, memory.data),
                                    static_cast<unsigned*>(arrived.data), nullptr);
    cuda_ok(cudaDeviceSynchronize());
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
      expect_right(c, [&](const cuda::AttentionRun& run) {
        const OnDevice memory(std::max<std::size_t>(cuda::attention_parts_bytes(run, parts), 8));
        cuda_ok(cuda::prepare_plain_attention(run));
        cuda::launch_plain_attention(run, cuda::attention_parts_in(run, parts, memory.data), nullptr);
        cuda_ok(cudaDeviceSynchronize());
      });
}

TEST_F(AttentionLse, OfTheKernelsOnTensorCores) {
  int whole = 0, decoded = 0;
  for (const Case& c : kCases)
    expect_right(c, [&](const cuda::AttentionRun& run) {
      if (cuda::takes_decode_attention(run, limits_)) {
        ++decoded;
        cuda::DecodeSplit split;
        cuda_ok(cuda::prepare_decode_attention(run, limits_, split));
        decode(run, split);
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
  EXPECT_GE(whole, 4);
  EXPECT_GE(decoded, 4);
}

// However the keys are shared out: fewer than there are warps, many times what is on its way, several tiles of lines.
TEST_F(AttentionLse, OfDecodingInEverySplit) {
  int ran = 0;
  for (const Case& c : {Case{DType::bf16, 2, 4, 2, 1, 70, 128, false}, Case{DType::f16, 1, 8, 2, 3, 3000, 128, true},
                        Case{DType::bf16, 1, 30, 2, 3, 1111, 64, true}, Case{DType::f16, 1, 4, 1, 1, 9000, 96, false}})
    for (const int cluster : {1, 2, 5, 8, 16})
      for (const int parts : {1, 3}) {
        if (cluster > 1 && !limits_.clusters) continue;
        SCOPED_TRACE(::testing::Message() << c.columns << " columns, clusters of " << cluster << ", " << parts << " parts");
        expect_right(c, [&](const cuda::AttentionRun& run) {
          cuda::DecodeSplit split;
          cuda_ok(cuda::prepare_decode_attention(run, limits_, split));
          for (const int warps : {split.warps, 1}) decode(run, {cluster, parts, warps});
          ++ran;
        });
      }
  EXPECT_EQ(ran, limits_.clusters ? 80 : 16);
}

// Of q in one head, of k and v for all heads that share theirs; other heads are as ever.
TEST_F(AttentionLse, OfDecodingWithNaNAndInfinityInEverySplit) {
  for (const DType type : {DType::f16, DType::bf16})
    for (const int columns : {140, 3000})
      for (const double special : {static_cast<double>(NAN), static_cast<double>(INFINITY), -static_cast<double>(INFINITY)})
        for (Tensor Inputs::*const where : {&Inputs::q, &Inputs::k, &Inputs::v}) {
          const Case c = {type, 1, 8, 2, 1, columns, 128, false};
          Inputs in(c);
          const std::int64_t place = where == &Inputs::q ? c.size + 3 : std::int64_t{100} * c.size + 5;
          store_element(type, (in.*where).mutable_data(), place, special);
          for (const int cluster : {1, 16})
            for (const int parts : {1, 3}) {
              if (cluster > 1 && !limits_.clusters) continue;
              SCOPED_TRACE(::testing::Message() << columns << " columns, " << special << " in "
                                                << "qkv"[where == &Inputs::k   ? 1
                                                         : where == &Inputs::v ? 2
                                                                               : 0]
                                                << ", clusters of " << cluster << ", " << parts << " parts");
              expect_right(c, in, [&](const cuda::AttentionRun& run) {
                cuda::DecodeSplit split;
                cuda_ok(cuda::prepare_decode_attention(run, limits_, split));
                decode(run, {cluster, parts, split.warps});
              });
            }
        }
}

TEST_F(AttentionLse, OfCudnn) {
  if (std::string why; !cuda::find_library(cuda::Which::cudnn, &why)) GTEST_SKIP() << why;
  for (const bool causal : {false, true}) {
    const Case c = {DType::bf16, 2, 6, 2, 200, 328, 128, causal};
    expect_results(c, Inputs(c), [&](const cuda::AttentionRun& run) {
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
}

}  // namespace
}  // namespace tandem
