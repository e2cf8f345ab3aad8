#include <gtest/gtest.h>

#include <cmath>

#include "kernels/kernel_case.h"
#include "ops/attention/operands.h"

namespace tandem::test {
namespace {

const DType kFloats[] = {DType::f32, DType::f16, DType::bf16};

struct Sizes {
  std::int64_t batch, heads, kv_heads, rows, columns, size, value_size;
};

KernelCase attention_case(DType dtype, const Sizes& s) {
  return {.kernel = "attention",
          .op = "Attention",
          .attributes = {{"scale", 1 / std::sqrt(static_cast<double>(s.size))}},
          .operands = {random_tensor(dtype, {s.batch, s.heads, s.rows, s.size}, 1),
                       random_tensor(dtype, {s.batch, s.kv_heads, s.columns, s.size}, 2),
                       random_tensor(dtype, {s.batch, s.kv_heads, s.columns, s.value_size}, 3), std::nullopt, std::nullopt, std::nullopt,
                       std::nullopt}};
}

Tensor random_bools(Shape shape, int one_in) {
  std::vector<std::int64_t> values;
  for (std::int64_t i = 0; i < element_count(shape); ++i) values.push_back(i * 2654435761 % 97 % one_in != 0);
  return Tensor::of_ints(DType::boolean, std::move(shape), values);
}

const Sizes kSizes[] = {{2, 3, 3, 17, 17, 8, 8},   {1, 4, 2, 130, 130, 32, 32}, {2, 6, 2, 5, 300, 20, 7},
                        {1, 8, 1, 1, 257, 64, 64}, {1, 2, 2, 1, 1, 4, 4},       {1, 2, 1, 40, 3, 16, 33},
                        {0, 2, 2, 4, 4, 8, 8},     {1, 2, 2, 0, 4, 8, 8},       {1, 2, 2, 4, 0, 8, 8}};

TEST(Attention, PlainLoop) {
  const std::int64_t rows = 9, columns = 150, size = 12;
  const KernelCase c = attention_case(DType::f32, {1, 1, 1, rows, columns, size, size});
  const Tensor &q = *c.operands[0], &k = *c.operands[1], &v = *c.operands[2];
  std::vector<double> out;
  for (std::int64_t i = 0; i < rows; ++i) {
    std::vector<double> weight;
    double total = 0;
    for (std::int64_t j = 0; j < columns; ++j) {
      double s = 0;
      for (std::int64_t d = 0; d < size; ++d) s += q.at(i * size + d) * k.at(j * size + d);
      weight.push_back(std::exp(s / std::sqrt(12.0)));
      total += weight.back();
    }
    for (std::int64_t d = 0; d < size; ++d) {
      double sum = 0;
      for (std::int64_t j = 0; j < columns; ++j) sum += weight[static_cast<std::size_t>(j)] * v.at(j * size + d);
      out.push_back(sum / total);
    }
  }
  expect_close(run_kernel(c)[0], Tensor::of(DType::f32, {1, 1, rows, size}, out), 1e-5, "attention");
}

TEST(Attention, SizesAndCausal) {
  for (const Sizes& s : kSizes)
    for (const DType dtype : kFloats)
      for (const char* causal : {"none", "upper_left", "lower_right", "offset"})
        for (const int threads : {1, 3}) {
          KernelCase c = attention_case(dtype, s);
          c.attributes.emplace_back("causal", std::string(causal));
          if (causal == std::string("offset")) c.operands[attention::kPast] = Tensor::of_ints(DType::i64, {}, std::vector<std::int64_t>{2});
          c.threads = threads;
          expect_kernel_matches_op(c, tolerance_of(dtype));
        }
}

TEST(Attention, Masks) {
  const Sizes s = {2, 4, 2, 19, 150, 16, 16};
  for (const Shape& shape :
       {Shape{2, 4, 19, 150}, Shape{2, 1, 1, 150}, Shape{19, 150}, Shape{1, 4, 19, 1}, Shape{2, 1, 19, 1}, Shape{}, Shape{4, 1, 150}})
    for (const DType dtype : kFloats)
      for (const bool additive : {false, true})
        for (const char* causal : {"none", "lower_right"})
          for (const char* empty : {"zero", "nan"}) {
            KernelCase c = attention_case(dtype, s);
            c.attributes.emplace_back("causal", std::string(causal));
            c.attributes.emplace_back("empty_rows", std::string(empty));
            c.operands[attention::kMask] = additive ? random_tensor(dtype, shape, 5, 2) : random_bools(shape, 3);
            expect_kernel_matches_op(c, tolerance_of(dtype));
          }
}

TEST(Attention, EmptyRowsMinusInfinityAndNaN) {
  KernelCase c = attention_case(DType::f32, {1, 2, 2, 5, 140, 8, 8});
  Tensor mask(DType::f32, {5, 140});
  for (std::int64_t j = 0; j < 140; ++j) mask.mutable_as<float>()[2 * 140 + j] = -INFINITY;  // row 2 attends to nothing
  for (std::int64_t j = 0; j < 130; ++j) mask.mutable_as<float>()[3 * 140 + j] = -INFINITY;  // row 3 only in the second block
  for (std::int64_t i = 0; i < 5; ++i) mask.mutable_as<float>()[i * 140 + 7] = -INFINITY;    // column 7 is for nobody
  c.operands[attention::kMask] = mask;
  expect_kernel_matches_op(c, 1e-5);
  Tensor v = random_tensor(DType::f32, {1, 2, 140, 8}, 9);
  v.mutable_as<float>()[7 * 8 + 2] = NAN;  // masked: must not be seen
  c.operands[attention::kV] = v;
  expect_kernel_matches_op(c, 1e-5);
  c.operands[attention::kMask] = std::nullopt;  // now it is
  expect_kernel_matches_op(c, 1e-5);
  Tensor q = random_tensor(DType::f32, {1, 2, 5, 8}, 9);
  q.mutable_as<float>()[3] = NAN;
  c.operands[attention::kQ] = q;
  expect_kernel_matches_op(c, 1e-5);
}

TEST(Attention, LengthsAndSoftcap) {
  for (const DType dtype : kFloats)
    for (const DType index : {DType::i32, DType::i64}) {
      KernelCase c = attention_case(dtype, {3, 2, 1, 20, 140, 16, 16});
      c.attributes.emplace_back("softcap", 2.0);
      c.operands[attention::kQueryLengths] = Tensor::of_ints(index, {3}, std::vector<std::int64_t>{20, 0, 7});
      c.operands[attention::kKeyLengths] = Tensor::of_ints(index, {3}, std::vector<std::int64_t>{0, 140, 133});
      c.attributes.emplace_back("causal", std::string("lower_right"));
      expect_kernel_matches_op(c, tolerance_of(dtype));
    }
}

// Head sizes that kernels have code of their own for, the largest, and odd ones, over several blocks of queries and keys.
TEST(Attention, HeadSizesAndForms) {
  for (const Sizes& s : {Sizes{1, 2, 1, 140, 150, 128, 128}, Sizes{1, 2, 1, 70, 70, 256, 256}, Sizes{1, 1, 1, 20, 70, 200, 136},
                         Sizes{1, 2, 2, 33, 165, 96, 96}, Sizes{1, 3, 1, 30, 200, 64, 64}, Sizes{1, 2, 1, 35, 50, 255, 129},
                         Sizes{2, 1, 1, 129, 129, 32, 32}, Sizes{1, 4, 1, 3, 700, 128, 128}, Sizes{2, 8, 2, 1, 600, 64, 64},
                         Sizes{1, 2, 2, 30, 400, 32, 64}, Sizes{1, 2, 1, 2, 500, 30, 200}, Sizes{2, 1, 1, 70, 90, 80, 64}})
    for (const DType dtype : kFloats)
      for (const char* form : {"plain", "lower_right", "bool", "additive", "keys", "lengths", "softcap"}) {
        KernelCase c = attention_case(dtype, s);
        const std::string_view name = form;
        if (dtype != DType::bf16 && name != "plain" && name != "lengths") continue;
        if (name == "lower_right") c.attributes.emplace_back("causal", std::string(name));
        if (name == "bool") c.operands[attention::kMask] = random_bools({s.rows, s.columns}, 3);
        if (name == "additive") c.operands[attention::kMask] = random_tensor(dtype, {s.batch, s.heads, s.rows, s.columns}, 5, 2);
        if (name == "keys") c.operands[attention::kMask] = random_bools({s.batch, 1, 1, s.columns}, 2);
        if (name == "softcap") c.attributes.emplace_back("softcap", 1.5);
        if (name == "lengths") {
          c.attributes.emplace_back("causal", std::string("offset"));
          c.operands[attention::kPast] = Tensor::of_ints(DType::i32, {}, std::vector<std::int64_t>{40});
          const std::vector<std::int64_t> rows(static_cast<std::size_t>(s.batch), s.rows - 1),
              columns(static_cast<std::size_t>(s.batch), s.columns - 30);
          c.operands[attention::kQueryLengths] = Tensor::of_ints(DType::i64, {s.batch}, rows);
          c.operands[attention::kKeyLengths] = Tensor::of_ints(DType::i32, {s.batch}, columns);
        }
        expect_kernel_matches_op(c, tolerance_of(dtype));
      }
}

// Masks of the least finite number, as exporters write them: a row of nothing else attends to everything alike.
TEST(Attention, LeastNumberAsMask) {
  for (const std::int64_t rows : {3, 70})
    for (const DType dtype : kFloats) {
      KernelCase c = attention_case(dtype, {1, 2, 1, rows, 140, 64, 64});
      const double least = dtype == DType::f32 ? -3.4028234663852886e38 : dtype == DType::f16 ? -65504 : -3.3895313892515355e38;
      std::vector<double> mask(static_cast<std::size_t>(rows * 140));
      for (std::size_t i = 0; i < mask.size(); ++i) mask[i] = i / 140 == 1 || i % 3 == 0 ? least : 0;
      c.operands[attention::kMask] = Tensor::of(dtype, {rows, 140}, mask);
      expect_kernel_matches_op(c, tolerance_of(dtype));
    }
}

// What a half can hold, in places that are masked and in places that are not.
TEST(Attention, HalfNaNAndInfinity) {
  for (const DType dtype : {DType::f16, DType::bf16})
    for (const bool masked : {true, false}) {
      KernelCase c = attention_case(dtype, {1, 2, 1, 40, 140, 64, 64});
      std::vector<double> values(140 * 64);
      for (std::size_t i = 0; i < values.size(); ++i) values[i] = std::sin(static_cast<double>(i));
      values[100 * 64 + 3] = NAN;
      values[101 * 64 + 5] = INFINITY;
      c.operands[attention::kV] = Tensor::of(dtype, {1, 1, 140, 64}, values);
      std::vector<std::int64_t> mask(140, 1);
      mask[100] = mask[101] = 0;
      if (masked) c.operands[attention::kMask] = Tensor::of_ints(DType::boolean, {140}, mask);
      expect_kernel_matches_op(c, tolerance_of(dtype));
      c.operands[attention::kK] = c.operands[attention::kV];
      expect_kernel_matches_op(c, tolerance_of(dtype));
    }
}

// One query of each head over so many keys that they are dealt out in many parts.
TEST(Attention, OneRowOverManyKeys) {
  for (const DType dtype : kFloats)
    for (const std::int64_t columns : {1024, 3001})
      for (const std::int64_t batch : {1, 40})
        if (batch == 1 || dtype == DType::bf16)
          expect_kernel_matches_op(attention_case(dtype, {batch, 8, 2, 1, columns, 128, 128}), tolerance_of(dtype));
}

// q, k and v as columns of one wider value, as a merged product leaves them, and of three.
TEST(FlatAttention, SameAsHeadsFirst) {
  struct Flat {
    std::int64_t batch, heads, kv_heads, rows, size, value_size, lead;
  };
  for (const Flat& f :
       {Flat{2, 12, 12, 128, 32, 32, 0}, Flat{2, 6, 2, 17, 8, 20, 5}, Flat{1, 3, 1, 140, 33, 16, 1}, Flat{0, 2, 2, 4, 8, 8, 0}})
    for (const DType dtype : kFloats)
      for (const char* causal : {"none", "upper_left"})
        for (const int threads : {1, 3}) {
          const std::int64_t k = f.lead + f.heads * f.size, v = k + f.kv_heads * f.size, all = v + f.kv_heads * f.value_size + f.lead;
          KernelCase c = {.kernel = "flat_attention", .op = "FlatAttention", .threads = threads};
          c.attributes = {
              {"heads", f.heads},           {"kv_heads", f.kv_heads},        {"size", f.size},
              {"value_size", f.value_size}, {"causal", std::string(causal)}, {"scale", 1 / std::sqrt(static_cast<double>(f.size))}};
          c.attributes.emplace_back("begins", std::vector<std::int64_t>{f.lead, k, v});
          const Tensor packed = random_tensor(dtype, {f.batch, f.rows, all}, 21);
          c.operands = {packed, packed, packed, random_tensor(dtype, {f.batch, 1, 1, f.rows}, 22)};
          expect_kernel_matches_op(c, tolerance_of(dtype));
        }
}

TEST(FlatAttention, PlainLoop) {
  const std::int64_t heads = 2, rows = 5, size = 3, width = heads * size;
  KernelCase c = {.kernel = "flat_attention", .op = "FlatAttention"};
  c.attributes = {{"heads", heads}, {"kv_heads", heads}, {"size", size}, {"value_size", size}};
  for (unsigned i = 0; i < 3; ++i) c.operands.emplace_back(random_tensor(DType::f32, {1, rows, width}, 30 + i));
  const Tensor &q = *c.operands[0], &k = *c.operands[1], &v = *c.operands[2];
  std::vector<double> out(static_cast<std::size_t>(rows * width));
  for (std::int64_t h = 0; h < heads; ++h)
    for (std::int64_t i = 0; i < rows; ++i) {
      double total = 0;
      std::vector<double> sums(static_cast<std::size_t>(size));
      for (std::int64_t j = 0; j < rows; ++j) {
        double s = 0;
        for (std::int64_t d = 0; d < size; ++d) s += q.at(i * width + h * size + d) * k.at(j * width + h * size + d);
        total += std::exp(s);
        for (std::int64_t d = 0; d < size; ++d) sums[static_cast<std::size_t>(d)] += std::exp(s) * v.at(j * width + h * size + d);
      }
      for (std::int64_t d = 0; d < size; ++d)
        out[static_cast<std::size_t>(i * width + h * size + d)] = sums[static_cast<std::size_t>(d)] / total;
    }
  expect_close(run_kernel(c)[0], Tensor::of(DType::f32, {1, rows, width}, out), 1e-5, "flat attention");
}

TEST(RotaryEmbedding, MatchesTheOp) {
  for (const DType dtype : kFloats)
    for (const bool interleaved : {false, true})
      for (const std::int64_t half : {1, 4, 21, 32})
        for (const std::int64_t batch : {1, 2})
          for (const bool in_place : {false, true}) {
            KernelCase c = {.kernel = "rotary_embedding", .op = "RotaryEmbedding", .threads = 2, .in_place = in_place};
            c.attributes = {{"interleaved", interleaved}, {"rotary_dim", 2 * half}};
            c.operands = {random_tensor(dtype, {2, 3, 7, 67}, 40), random_tensor(dtype, {batch, 7, half}, 41),
                          random_tensor(dtype, {batch, 7, half}, 42)};
            expect_kernel_matches_op(c, tolerance_of(dtype));
            c.attributes.emplace_back("order", std::string("bshd"));
            c.operands[0] = random_tensor(dtype, {2, 7, 3, 67}, 40);
            expect_kernel_matches_op(c, tolerance_of(dtype));
          }
}

TEST(RotaryEmbedding, WholeVectors) {
  for (const DType dtype : kFloats)
    for (const bool interleaved : {false, true})
      for (const std::int64_t rotated : {0, 64}) {
        KernelCase c = {.kernel = "rotary_embedding", .op = "RotaryEmbedding"};
        c.attributes = {{"interleaved", interleaved}, {"rotary_dim", rotated}};
        const std::int64_t half = rotated == 0 ? 64 : 32;
        c.operands = {random_tensor(dtype, {2, 3, 50, 128}, 40), random_tensor(dtype, {2, 50, half}, 41),
                      random_tensor(dtype, {2, 50, half}, 42)};
        expect_kernel_matches_op(c, tolerance_of(dtype));
      }
}

TEST(RotaryEmbedding, PlainLoop) {
  KernelCase c = {.kernel = "rotary_embedding", .op = "RotaryEmbedding"};
  c.operands = {Tensor::of(DType::f32, {1, 1, 1, 4}, std::vector<double>{1, 2, 3, 4}),
                Tensor::of(DType::f32, {1, 1, 2}, std::vector<double>{0.5, 0}),
                Tensor::of(DType::f32, {1, 1, 2}, std::vector<double>{2, 1})};
  expect_close(run_kernel(c)[0], Tensor::of(DType::f32, {1, 1, 1, 4}, std::vector<double>{0.5 - 6, -4, 1.5 + 2, 2}), 1e-6, "halves");
  c.attributes = {{"interleaved", true}};
  expect_close(run_kernel(c)[0], Tensor::of(DType::f32, {1, 1, 1, 4}, std::vector<double>{0.5 - 4, 1 + 2, -4, 3}), 1e-6, "neighbours");
}

}  // namespace
}  // namespace tandem::test
