#include <cmath>

#include "ops/onnx_dtype.h"
#include "ops/op_test.h"
#include "ops/quantize/operands.h"

namespace tandem::testing {
namespace {

using Codes = std::vector<std::int64_t>;

const DType kQuantized[] = {DType::i8, DType::u8, DType::i16, DType::u16, DType::i4, DType::u4, DType::f8e4m3, DType::f8e5m2};

Tensor quantized(const Tensor& x, const Tensor& scale, std::optional<Tensor> zero, NamedAttributes attributes) {
  std::vector<std::optional<Tensor>> operands = {x, scale};
  if (zero) operands.push_back(zero);
  return evaluate(ops::QuantizeLinear, operands, attributes);
}

TEST(Quantize, RoundsToEvenAndSaturates) {
  const Tensor x = numbers({8}, {0, 1, -1, 3, 1000, -1000, 5, NAN}), scale = numbers({}, {2});
  EXPECT_EQ(quantized(x, scale, ints({}, {128}, DType::u8), {}).to_ints(), (Codes{128, 128, 128, 130, 255, 0, 130, 128}));
  EXPECT_EQ(quantized(x, scale, std::nullopt, {{"to", DType::i8}}).to_ints(), (Codes{0, 0, 0, 2, 127, -128, 2, 0}));
  EXPECT_EQ(quantized(x, scale, std::nullopt, {{"to", DType::i4}}).to_ints(), (Codes{0, 0, 0, 2, 7, -8, 2, 0}));
  EXPECT_EQ(quantized(x, scale, ints({}, {7}, DType::u4), {{"to", DType::u4}}).to_ints(), (Codes{7, 7, 7, 9, 15, 0, 9, 7}));
  EXPECT_EQ(quantized(numbers({2}, {INFINITY, -INFINITY}), scale, std::nullopt, {{"to", DType::i16}}).to_ints(), (Codes{32767, -32768}));
}

// The quotient is rounded in the dtype of the scale before it is rounded to a whole number.
TEST(Quantize, DividesInTheScalesType) {
  const Tensor x = numbers({1}, {2.499}), wide = numbers({}, {1}), narrow = numbers({}, {1}, DType::bf16);
  EXPECT_EQ(quantized(x, wide, std::nullopt, {{"to", DType::i8}}).to_ints(), (Codes{2}));
  EXPECT_EQ(quantized(numbers({1}, {3.499}), wide, std::nullopt, {{"to", DType::i8}}).to_ints(), (Codes{3}));
  EXPECT_EQ(quantized(numbers({1}, {3.499}), narrow, std::nullopt, {{"to", DType::i8}}).to_ints(), (Codes{4}));
}

TEST(Quantize, SmallFloats) {
  const Tensor x = numbers({6}, {1.0, 500, -1e9, INFINITY, NAN, 1.06}), one = numbers({}, {1});
  const std::vector<double> e4m3 = quantized(x, one, std::nullopt, {{"to", DType::f8e4m3}}).to_doubles();
  EXPECT_EQ(std::vector<double>(e4m3.begin(), e4m3.begin() + 4), (std::vector<double>{1, 448, -448, 448}));
  EXPECT_TRUE(std::isnan(e4m3[4]));
  EXPECT_EQ(e4m3[5], 1.0);
  const std::vector<double> open = quantized(x, one, std::nullopt, {{"to", DType::f8e4m3}, {"saturate", false}}).to_doubles();
  EXPECT_TRUE(std::isnan(open[1]) && std::isnan(open[3]));
  const std::vector<double> e5m2 = quantized(x, one, std::nullopt, {{"to", DType::f8e5m2}}).to_doubles();
  EXPECT_EQ(std::vector<double>(e5m2.begin(), e5m2.begin() + 4), (std::vector<double>{1, 512, -57344, 57344}));
  EXPECT_TRUE(std::isinf(quantized(x, one, std::nullopt, {{"to", DType::f8e5m2}, {"saturate", false}}).at(3)));
}

// Against loops of its own over every way that scales may lie.
TEST(Quantize, ScalesOfAxesAndBlocks) {
  const Shape shape = {2, 5, 3};
  for (const DType to : kQuantized) {
    const double most = is_float(to) ? 4 : quantized_range(to).most;
    for (std::int64_t axis = -3; axis < 3; ++axis) {
      const auto a = static_cast<std::size_t>(axis < 0 ? axis + 3 : axis);
      for (const std::int64_t block : {0, 1, 2, 3}) {
        Shape scales = shape;
        if (block == 0) scales = {shape[a]};
        else scales[a] = (shape[a] + block - 1) / block;
        Tensor x = waves(1, shape), scale = waves(2, scales);
        for (std::int64_t i = 0; i < scale.count(); ++i) store_element(DType::f32, scale.mutable_data(), i, (1.5 + scale.at(i)) / most);
        const NamedAttributes where = {{"axis", axis}, {"block_size", block}};
        NamedAttributes attributes = where;
        attributes.emplace_back("to", to);
        const Tensor q = quantized(x, scale, std::nullopt, attributes);
        const Tensor y = evaluate(ops::DequantizeLinear, {q, scale}, where);
        for (std::int64_t i = 0; i < x.count(); ++i) {
          std::int64_t index[3] = {i / 15, i / 3 % 5, i % 3};
          std::int64_t at = index[a];
          if (block != 0) {
            index[a] /= block;
            at = (index[0] * scales[1] + index[1]) * scales[2] + index[2];
          }
          const std::string what = fmt::format("{} axis {} block {} at {}", to_string(to), axis, block, i);
          EXPECT_EQ(y.at(i), static_cast<float>(q.at(i) * scale.at(at))) << what;
          const QuantizedRange range = quantized_range(to);
          const double v = static_cast<float>(x.at(i) / scale.at(at)), clipped = std::fmax(range.least, std::fmin(range.most, v));
          const double step = is_float(to) ? std::fmax(std::abs(clipped), 0.02) * (to == DType::f8e4m3 ? 0.0625 : 0.125) : 0.5;
          EXPECT_LE(std::abs(q.at(i) - clipped), step) << to_string(to);
        }
      }
    }
  }
}

TEST(Dequantize, ZeroPointsAndTypes) {
  const Tensor x = ints({4}, {0, 3, 128, 255}, DType::u8), scale = numbers({}, {2}), zero = ints({}, {128}, DType::u8);
  expect_near(evaluate(ops::DequantizeLinear, {x, scale, zero}), {-256, -250, 0, 254});
  expect_near(evaluate(ops::DequantizeLinear, {ints({2}, {100000, -7}, DType::i32), numbers({}, {0.5})}), {50000, -3.5});
  const Tensor half = evaluate(ops::DequantizeLinear, {x, numbers({}, {2}, DType::f16), zero}, {{"to", DType::f16}});
  EXPECT_EQ(half.dtype(), DType::f16);
  expect_near(half, {-256, -250, 0, 254});
}

TEST(Quantize, InferenceErrors) {
  const auto f32 = [](const char* dims) { return type_of(DType::f32, dims); };
  const auto i8 = [](const char* dims) { return type_of(DType::i8, dims); };
  using Operands = std::vector<std::optional<Type>>;
  const auto refused = [&](const OpDef& op, const Operands& operands, const NamedAttributes& attributes, const std::string& part) {
    expect_error(ErrorCode::invalid_model, part, [&] { infer(op, operands, attributes); });
  };
  using V = std::int64_t;
  EXPECT_EQ(infer(ops::DequantizeLinear, {i8("B,64"), f32("B,2")}, {{"block_size", V{32}}}), (std::vector<Type>{f32("B,64")}));
  refused(ops::DequantizeLinear, {i8("64,8"), f32("7")}, {}, "7 scales are given for axis 1 of i8[64,8], which has 8");
  refused(ops::DequantizeLinear, {i8("64,8"), f32("3,8")}, {{"axis", V{0}}, {"block_size", V{32}}}, "expected [2,8]");
  refused(ops::DequantizeLinear, {i8("64,8"), f32("2,8")}, {{"axis", V{0}}}, "need a block_size");
  refused(ops::DequantizeLinear, {i8("64,8"), f32("8"), i8("1")}, {}, "zero points i8[1] do not lie like the scales");
  refused(ops::DequantizeLinear, {i8("64,8"), f32("8"), type_of(DType::u8, "8")}, {}, "zero points are u8, expected i8");
  refused(ops::DequantizeLinear, {i8("64,8"), i8("8")}, {}, "scales are i8, expected a float type");
  refused(ops::DequantizeLinear, {f32("64,8"), f32("8")}, {}, "f32 holds no quantised numbers");
  refused(ops::DequantizeLinear, {i8("64,8"), f32("8")}, {{"axis", V{2}}}, "axis 2");
  refused(ops::DequantizeLinear, {i8("64,8"), f32("8")}, {{"block_size", V{-1}}}, "block_size -1");
  refused(ops::QuantizeLinear, {i8("8"), f32("")}, {}, "i8 is quantised, expected a float type or i32");
  refused(ops::QuantizeLinear, {f32("8"), f32("")}, {{"to", DType::i64}}, "it gives no i64");
}

TEST(Quantize, Rules) {
  using V = std::int64_t;
  const Type x = type_of(DType::i8, "6,64"), blocks = type_of(DType::f32, "6,2");
  EXPECT_EQ(rule_text(ops::DequantizeLinear, {x, type_of(DType::f32, "64")}), "a b, b -> a b");
  EXPECT_EQ(rule_text(ops::DequantizeLinear, {x, type_of(DType::f32, "")}), "a b,  -> a b");
  EXPECT_EQ(rule_text(ops::DequantizeLinear, {x, blocks, type_of(DType::i8, "6,2")}, {{"block_size", V{32}}}), "a bc!, a b, a b -> a bc!");
}

const NamedAttributes kToF16 = {{"to", DType::f16}, {"activation", std::string("relu")}};

// By a loop of its own.
TEST(QuantMatMul, AddsProductsOfCodes) {
  for (const bool floats : {false, true}) {
    const DType left = floats ? DType::f8e5m2 : DType::i8, right = floats ? DType::f8e4m3 : DType::i8;
    const Tensor a = numbers({2, 1, 3}, {3, -4, 112, 0, 1, -96}, left), b = numbers({3, 2}, {1, -2, 120, 28, -5, 0}, right);
    const Tensor scale = numbers({2}, {0.5, 0.25}), scale_a = numbers({1}, {0.125}), bias = numbers({2}, {1, -100}, DType::f16);
    const Tensor residual = numbers({2, 1, 2}, {1, 2, 3, 4}, DType::f16);
    std::vector<double> expected;
    for (int i = 0; i < 2; ++i)
      for (int j = 0; j < 2; ++j) {
        double sum = 0;
        for (int l = 0; l < 3; ++l) sum += a.at(i * 3 + l) * b.at(l * 2 + j);
        expected.push_back(std::max(0.0, sum * scale.at(j) * 0.125 + bias.at(j)) + residual.at(i * 2 + j));
      }
    const Tensor y = evaluate(ops::QuantMatMul, {a, b, bias, residual, scale, scale_a}, kToF16);
    EXPECT_EQ(y.dtype(), DType::f16);
    expect_near(y, expected, 1e-3);
  }
}

TEST(QuantMatMul, InferenceAndRule) {
  const auto i8 = [](const char* dims) { return type_of(DType::i8, dims); };
  const auto f32 = [](const char* dims) { return type_of(DType::f32, dims); };
  using Operands = std::vector<std::optional<Type>>;
  const auto refused = [&](const Operands& operands, const NamedAttributes& attributes, const std::string& part) {
    expect_error(ErrorCode::invalid_model, part, [&] { infer(ops::QuantMatMul, operands, attributes); });
  };
  const std::optional<Type> none;
  EXPECT_EQ(infer(ops::QuantMatMul, {i8("B,S,8"), i8("8,6"), none, none, f32("6"), f32("")}, {{"to", DType::bf16}}),
            (std::vector<Type>{type_of(DType::bf16, "B,S,6")}));
  refused({f32("B,8"), i8("8,6"), none, none, f32("6"), f32("")}, {}, "f32 is multiplied by i8, expected i8 by i8 or 8-bit floats by such");
  refused({i8("B,8"), type_of(DType::f8e4m3, "8,6"), none, none, f32("6"), f32("")}, {}, "i8 is multiplied by f8e4m3");
  refused({i8("B,8"), i8("8,6"), none, none, f32("5"), f32("")}, {}, "5 scales are given for axis 1 of i8[8,6], which has 6");
  refused({i8("B,8"), i8("8,6"), none, none, f32("6"), f32("8")}, {}, "the scale of a is f32[8], expected one float");
  refused({i8("B,8"), i8("8,6"), none, none, f32("6")}, {}, "the scale of a is missing");
  refused({i8("B,8"), i8("8,6"), none, none, f32("6"), f32("")}, {{"to", DType::i32}}, "it gives no i32");
  refused({i8("B,8"), i8("8,6"), none, none, f32("6"), f32("")}, {{"to", DType::f8e4m3}}, "it gives no f8e4m3");
  refused({i8("B,7"), i8("8,6"), none, none, f32("6"), f32("")}, {}, "7 columns meet 8 rows");
  EXPECT_EQ(rule_text(ops::QuantMatMul, {i8("4,8"), i8("8,6"), none, none, f32("6"), f32("1")}), "a b+sum, b+sum c, , , c, 1 -> a c");
}

TEST(Quantize, Import) {
  const auto onnx = [](DType type) { return dtype_to_onnx(type); };
  Imported plain("QuantizeLinear", 13);
  plain.input(numbers({3}, {1, 2, 300})).constant(numbers({}, {1}));
  EXPECT_EQ(plain.evaluate().dtype(), DType::u8);
  Imported asked("QuantizeLinear", 21);
  asked.input(numbers({3}, {1, 2, 300})).constant(numbers({}, {1})).with("output_dtype", onnx(DType::i4));
  EXPECT_EQ(asked.evaluate().to_ints(), (Codes{1, 2, 7}));
  Imported differing("QuantizeLinear", 21);
  differing.input(numbers({3}, {1, 2, 3})).constant(numbers({}, {1})).constant(ints({}, {0}, DType::u8));
  differing.with("output_dtype", onnx(DType::i8));
  expect_error(ErrorCode::invalid_model, "output_dtype is i8, but zero points are u8", [&] { differing.evaluate(); });
  Imported shifted("DequantizeLinear", 19);
  shifted.input(numbers({2}, {1, 2}, DType::f8e4m3)).constant(numbers({}, {1})).constant(numbers({}, {1}, DType::f8e4m3));
  expect_error(ErrorCode::invalid_model, "must be 0", [&] { shifted.evaluate(); });
}

TEST(Quantize, DynamicOverTheRange) {
  Imported dynamic("DynamicQuantizeLinear", 11);
  dynamic.input(numbers({6}, {0, 2, -3, -2.5, 1.34, 0.5}));
  EXPECT_EQ(dynamic.evaluate(0).to_ints(), (Codes{153, 255, 0, 26, 221, 179}));
  expect_near(dynamic.evaluate(1), {0.0196078438});
  EXPECT_EQ(dynamic.evaluate(2).to_ints(), (Codes{153}));
}

TEST(MatMulInteger, ShiftsRowsAndColumns) {
  Imported product("MatMulInteger", 10);
  product.input(ints({2, 3}, {11, 7, 3, 10, 6, 2}, DType::u8)).input(ints({3, 2}, {1, 4, 2, 5, 3, 6}, DType::u8));
  product.constant(ints({2}, {12, 11}, DType::u8)).constant(ints({}, {1}, DType::u8));
  EXPECT_EQ(product.evaluate().to_ints(), (Codes{-5 * 1 - 9 * 2, -3 - 20 - 45, -5 - 18, -3 - 20 - 45}));
}

}  // namespace
}  // namespace tandem::testing
