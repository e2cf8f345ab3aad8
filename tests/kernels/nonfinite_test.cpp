// NaN and infinities in every kernel: where the op's evaluator has them the kernel has them, and nowhere else.
#include <gtest/gtest.h>

#include <cmath>

#include "kernels/kernel_case.h"
#include "ops/attention/operands.h"
#include "ops/ops.h"
#include "ops/quantize/operands.h"

namespace tandem::test {
namespace {

const DType kFloats[] = {DType::f32, DType::f16, DType::bf16};
using Ints = std::vector<std::int64_t>;

// Random, but in each row of the last dimension other specials: none, NaN, +∞, −∞, both infinities, all −∞, NaN first and last.
Tensor spiked(DType dtype, const Shape& shape, unsigned seed = 1) {
  Tensor x = random_tensor(dtype, shape, seed);
  const std::int64_t n = shape.back(), rows = n == 0 ? 0 : x.count() / n;
  const auto put = [&](std::int64_t row, std::int64_t at, double value) {
    store_element(dtype, x.mutable_data(), row * n + at % n, value);
  };
  for (std::int64_t row = 0; row < rows; ++row) switch (row % 7) {
      case 1: put(row, n / 2, NAN); break;
      case 2: put(row, n / 3, INFINITY); break;
      case 3: put(row, n - 1, -INFINITY); break;
      case 4: put(row, 0, INFINITY), put(row, n - 1, -INFINITY); break;
      case 5:
        for (std::int64_t i = 0; i < n; ++i) put(row, i, -INFINITY);
        break;
      case 6: put(row, 0, NAN), put(row, n - 1, NAN); break;
      default: break;
    }
  return x;
}

// By every kernel of the CPU that does not refuse it and promises what the op promises; on a GPU by the one that it takes.
void expect_all(const std::string& op, std::vector<std::pair<std::string, AttributeValue>> attributes,
                std::vector<std::optional<Tensor>> operands, double tolerance, std::vector<std::size_t> weights = {}) {
  int ran = 0;
  for (const KernelDef* kernel : kernels_of(op, "cpu")) {
    KernelCase c = {
        .kernel = std::string(kernel->name), .op = op, .attributes = attributes, .operands = operands, .weights = weights, .threads = 2};
    if (!kernel->weaker.empty() || refusal_of(c)) continue;
    ++ran;
    expect_kernel_matches_op(c, tolerance);
    if (on_cuda()) break;
  }
  EXPECT_GT(ran, 0) << op;
}

TEST(NonFinite, Norms) {
  for (const DType dtype : kFloats)
    for (const std::int64_t n : {5, 64, 1000, 4096}) {
      const Tensor x = spiked(dtype, {14, n}), r = random_tensor(dtype, {14, n}, 2), s = random_tensor(dtype, {n}, 3),
                   b = random_tensor(dtype, {n}, 4);
      const double tolerance = 2 * tolerance_of(dtype);
      expect_all("LayerNorm", {}, {x, s, b}, tolerance);
      expect_all("RmsNorm", {}, {x, s}, tolerance);
      expect_all("AddLayerNorm", {}, {x, r, s, b}, tolerance);
      expect_all("AddLayerNorm", {}, {r, x, s, b}, tolerance);
      expect_all("AddRmsNorm", {}, {x, r, s}, tolerance);
    }
}

TEST(NonFinite, Softmax) {
  for (const DType dtype : kFloats)
    for (const std::int64_t n : {1, 7, 64, 1500, 9000})
      for (const char* op : {"Softmax", "LogSoftmax"}) expect_all(op, {}, {spiked(dtype, {14, n})}, tolerance_of(dtype));
}

TEST(NonFinite, Reductions) {
  for (const DType dtype : kFloats)
    for (const std::string kind : {"sum", "mean", "max", "min", "prod", "l1", "sum_square", "l2", "log_sum_exp"})
      for (const Shape& shape : {Shape{14, 3}, Shape{14, 129}, Shape{7, 2000}}) {
        Tensor x = spiked(dtype, shape);
        if (kind == "prod")  // no overflow of finite values, whose order would matter
          for (std::int64_t i = 0; i < x.count(); ++i)
            if (std::isfinite(x.at(i))) store_element(dtype, x.mutable_data(), i, i % 2 ? 1 : -1);
        expect_all("Reduce", {{"kind", kind}, {"axes", Ints{1}}}, {x}, 4 * tolerance_of(dtype));
        expect_all("Reduce", {{"kind", kind}, {"axes", Ints{0}}}, {x}, 4 * tolerance_of(dtype));
      }
}

TEST(NonFinite, ArgReduceAndCumSum) {
  for (const DType dtype : kFloats)
    for (const char* op : {"ArgMax", "ArgMin"})
      for (const std::int64_t axis : {0, 1}) expect_all(op, {{"axis", axis}}, {spiked(dtype, {14, 300})}, 0);
  for (const DType dtype : kFloats)
    for (const std::int64_t axis : {0, 1}) expect_all("CumSum", {{"axis", axis}}, {spiked(dtype, {14, 300})}, tolerance_of(dtype));
}

TEST(NonFinite, TopK) {
  for (const DType dtype : kFloats)
    for (const bool largest : {true, false})
      for (const std::int64_t axis : {0, 1})
        for (const std::int64_t columns : {300, 3000})
          expect_all("TopK", {{"axis", axis}, {"k", Dim(14)}, {"largest", largest}}, {spiked(dtype, {14, columns})}, 0);
}

TEST(NonFinite, Products) {
  for (const DType dtype : kFloats)
    for (const std::int64_t m : {1, 4, 14, 40}) {
      const Tensor a = spiked(dtype, {m, 72}), b = random_tensor(dtype, {72, 40}, 2), bias = spiked(dtype, {1, 40}, 3);
      expect_all("MatMul", {}, {a, b}, 2 * tolerance_of(dtype));
      expect_all("MatMul", {}, {random_tensor(dtype, {m, 72}, 4), spiked(dtype, {72, 40}, 5)}, 2 * tolerance_of(dtype));
      for (const std::string activation : {"relu", "gelu", "silu"})
        expect_all("MatMul", {{"activation", activation}}, {a, b, bias.reshaped({40})}, 2 * tolerance_of(dtype));
    }
}

// Of a matrix in a layout of the kernel's own.
TEST(NonFinite, ProductsOfAWeight) {
  for (const DType dtype : kFloats)
    for (const std::int64_t m : {1, 2, 7, 8, 14, 16}) {
      const Tensor a = spiked(dtype, {m, 200}), b = random_tensor(dtype, {200, 43}, 2, 0.1);
      expect_all("MatMul", {}, {a, b}, 2 * tolerance_of(dtype), {1});
      expect_all("MatMul", {}, {random_tensor(dtype, {m, 200}, 4), spiked(dtype, {200, 43}, 5)}, 2 * tolerance_of(dtype), {1});
    }
}

TEST(NonFinite, ProductsOfQuantisedWeights) {
  for (const DType dtype : kFloats)
    for (const DType codes : {DType::i8, DType::u8, DType::i4, DType::u4, DType::f8e4m3})
      for (const std::int64_t block : {0, 64}) {
        const Tensor b = random_tensor(codes, {192, 48}, 2, 2), scale = Tensor::of(DType::f32, {}, std::vector<double>{0.1});
        std::vector<std::optional<Tensor>> operands = {spiked(dtype, {14, 192}), b, std::nullopt, std::nullopt, scale};
        if (block != 0) operands[kDequantScale] = Tensor::of(DType::f32, {3, 48}, std::vector<double>(3 * 48, 0.1));
        expect_all("DequantMatMul", {{"block_size", block}}, operands, 2 * tolerance_of(dtype), {kDequantB, kDequantScale});
      }
}

TEST(NonFinite, Gated) {
  for (const DType dtype : kFloats)
    for (const std::string activation : {"none", "gelu", "gelu_tanh", "silu", "relu", "tanh", "sigmoid"})
      expect_all("Gated", {{"activation", activation}}, {spiked(dtype, {14, 66})}, 2 * tolerance_of(dtype));
}

// What is none beside what is none, and beside zeros of both signs.
TEST(NonFinite, FunctionsOfTwo) {
  const std::vector<double> values = {NAN, INFINITY, -INFINITY, 0.0, -0.0, 1, -1, 0.5, 2, -3, 1e4};
  const auto count = static_cast<std::int64_t>(values.size());
  int seen = 0;
  for (const OpDef* op : all_ops().all()) {
    const bool logic = op->name == "And" || op->name == "Or" || op->name == "Xor";
    if (!op->pointwise || op->max_operands != 2 || logic) continue;
    ++seen;
    for (const DType dtype : kFloats)
      expect_all(std::string(op->name), {}, {Tensor::of(dtype, {count, 1}, values), Tensor::of(dtype, {count}, values)},
                 2 * tolerance_of(dtype));
  }
  EXPECT_GE(seen, 12);
}

TEST(NonFinite, RotaryEmbedding) {
  for (const DType dtype : kFloats)
    for (const bool interleaved : {false, true})
      expect_all("RotaryEmbedding", {{"interleaved", interleaved}},
                 {spiked(dtype, {1, 2, 7, 64}), random_tensor(dtype, {1, 7, 32}, 2), random_tensor(dtype, {1, 7, 32}, 3)},
                 2 * tolerance_of(dtype));
}

// One query of each head, of which GPUs share the keys out; of 12000 over parts that a second kernel merges. q is special in one head, k
// and v are for all heads that share theirs: at one place that the mask leaves out, if there is a mask.
void expect_decoding(DType dtype, std::int64_t heads, std::int64_t kv_heads, std::int64_t columns, bool masked) {
  constexpr std::int64_t kSize = 128, kPlace = 100;
  const Tensor given[] = {random_tensor(dtype, {1, heads, 1, kSize}, 1), random_tensor(dtype, {1, kv_heads, columns, kSize}, 2),
                          random_tensor(dtype, {1, kv_heads, columns, kSize}, 3)};
  std::vector<std::int64_t> mask(static_cast<std::size_t>(columns), 1);
  mask[kPlace] = 0;
  for (const std::size_t special : {attention::kQ, attention::kK, attention::kV})
    for (const double value : {static_cast<double>(NAN), static_cast<double>(INFINITY), -static_cast<double>(INFINITY)}) {
      SCOPED_TRACE(::testing::Message() << columns << " keys, " << value << " in operand " << special << (masked ? ", masked" : ""));
      std::vector<std::optional<Tensor>> operands(std::begin(given), std::end(given));
      const std::int64_t at = special == attention::kQ ? kSize + 3 : kPlace * kSize + 3;
      const double before = operands[special]->at(at);  // copies share the memory
      store_element(dtype, operands[special]->mutable_data(), at, value);
      if (masked) operands.emplace_back(Tensor::of_ints(DType::boolean, {columns}, mask));
      expect_all("Attention", {{"scale", 1 / std::sqrt(static_cast<double>(kSize))}}, operands, 2 * tolerance_of(dtype));
      store_element(dtype, operands[special]->mutable_data(), at, before);
    }
}

TEST(NonFinite, Decoding) {
  for (const DType dtype : {DType::f16, DType::bf16})
    for (const bool masked : {false, true})
      for (const std::int64_t columns : {140, 3000}) expect_decoding(dtype, 8, 2, columns, masked);
}

TEST(NonFinite, DecodingInParts) {
  for (const bool masked : {false, true}) expect_decoding(DType::bf16, 2, 1, 12000, masked);
}

// A row that has no weight in a mixture is not seen.
TEST(NonFinite, Resized) {
  for (const DType dtype : kFloats)
    for (const std::string mode : {"nearest", "linear", "cubic"})
      expect_all("Resize", {{"sizes", std::vector<Dim>{9, 30}}, {"mode", mode}}, {spiked(dtype, {14, 24}).reshaped({1, 2, 7, 24})},
                 2 * tolerance_of(dtype));
}

// What is not selected must not be seen, so a mask by multiplication would show.
TEST(NonFinite, MovedAndSelected) {
  const auto dims = [](const Ints& values) {
    std::vector<Dim> out;
    for (const std::int64_t v : values) out.emplace_back(v);
    return out;
  };
  for (const DType dtype : kFloats) {
    const Tensor x = spiked(dtype, {14, 24});
    const Tensor rows = Tensor::of_ints(DType::i64, {6}, Ints{0, 3, 13, 6, 1, 5}),
                 mask = Tensor::of_ints(DType::boolean, {14, 1}, Ints{1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0});
    expect_all("Gather", {}, {x, rows}, 0);
    expect_all("Transpose", {{"permutation", Ints{1, 0}}}, {x}, 0);
    expect_all("Concat", {{"axis", std::int64_t{1}}}, {x, x}, 0);
    expect_all("Expand", {{"shape", dims({3, 14, 24})}}, {x}, 0);
    expect_all("Reshape", {{"shape", dims({24, 14})}}, {x}, 0);
    for (const bool upper : {false, true}) expect_all("Trilu", {{"upper", upper}, {"k", Dim(0)}}, {x}, 0);
    expect_all("Pad", {{"pads", dims({1, 2, 3, 4})}, {"mode", std::string("constant")}, {"value", -INFINITY}}, {x}, 0);
    expect_all("Where", {}, {mask, x, random_tensor(dtype, {14, 24}, 2)}, 0);
    expect_all("ScatterND", {}, {x, Tensor::of_ints(DType::i64, {2, 1}, Ints{2, 9}), spiked(dtype, {2, 24}, 4)}, 0);
    expect_all("Slice", {{"starts", dims({2})}, {"ends", dims({20})}, {"axes", Ints{1}}, {"steps", Ints{3}}}, {x}, 0);
    expect_all("ShardSlice", {{"dim", std::int64_t{0}}, {"begin", Dim(10)}, {"length", Dim(6)}}, {x}, 0);
    expect_all("GatherND", {}, {x, Tensor::of_ints(DType::i64, {3, 1}, Ints{13, 2, 6})}, 0);
    expect_all("GatherElements", {{"axis", std::int64_t{1}}}, {x, Tensor::of_ints(DType::i64, {14, 2}, Ints(28, 23))}, 0);
  }
}

}  // namespace
}  // namespace tandem::test
