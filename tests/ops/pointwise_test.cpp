#include <cmath>
#include <limits>

#include "ops/op_test.h"

namespace tandem::testing {
namespace {

constexpr double kInf = std::numeric_limits<double>::infinity(), kNan = std::numeric_limits<double>::quiet_NaN();

struct UnaryCase {
  std::string_view op;
  std::vector<double> in, out;
  NamedAttributes attributes{};
};

const std::vector<UnaryCase> kUnary = {
    {"Abs", {-2, 0, 3}, {2, 0, 3}},
    {"Ceil", {-1.5, 1.2, 2}, {-1, 2, 2}},
    {"Cos", {0, 1}, {1, 0.540302306}},
    {"Elu", {-2, -0.5, 0, 1}, {-1.729329, -0.786939, 0, 1}, {{"alpha", 2.0}}},
    {"Erf", {-1, 0, 0.5}, {-0.842700793, 0, 0.520499878}},
    {"Exp", {0, 1, -kInf}, {1, 2.718281828, 0}},
    {"Floor", {-1.5, 1.2, 2}, {-2, 1, 2}},
    {"Gelu", {-2, -0.5, 0, 1, 3}, {-0.0455, -0.154269, 0, 0.841345, 2.99595}},
    {"Gelu", {-2, -0.5, 0, 1, 3}, {-0.045402, -0.154286, 0, 0.841192, 2.996363}, {{"approximate", std::string("tanh")}}},
    {"HardSigmoid", {-9, 0, 1, 9}, {0, 0.5, 0.7, 1}},
    {"HardSwish", {-4, -1, 0, 1, 4}, {0, -0.333333333, 0, 0.666666667, 4}},
    {"LeakyRelu", {-2, 3}, {-0.2, 3}, {{"alpha", 0.1}}},
    {"Log", {1, 10, 0}, {0, 2.302585093, -kInf}},
    {"Neg", {1, -2, kInf}, {-1, 2, -kInf}},
    {"Reciprocal", {2, -4}, {0.5, -0.25}},
    {"Relu", {-1, 0, 2, kNan}, {0, 0, 2, kNan}},
    {"Round", {0.5, 1.5, -2.5, 2.6}, {0, 2, -2, 3}},
    {"Sigmoid", {-100, 0, 2}, {3.7e-44, 0.5, 0.880797078}},
    {"Sign", {-3, 0, 5, kNan}, {-1, 0, 1, kNan}},
    {"Silu", {-1, 0, 2}, {-0.268941421, 0, 1.761594156}},
    {"Sin", {0, 1}, {0, 0.841470985}},
    {"Softplus", {-1, 0, 50, kNan}, {0.313261688, 0.693147181, 50, kNan}},
    {"Sqrt", {4, 2, -1}, {2, 1.414213562, kNan}},
    {"Tanh", {0, 0.5}, {0, 0.462117157}},
};

TEST(Pointwise, UnaryValues) {
  for (const UnaryCase& c : kUnary) {
    SCOPED_TRACE(c.op);
    const OpDef* op = all_ops().find(c.op);
    ASSERT_NE(op, nullptr);
    EXPECT_TRUE(op->pointwise);
    expect_near(evaluate(*op, {numbers({static_cast<std::int64_t>(c.in.size())}, c.in, DType::f64)}, c.attributes), c.out, 1e-6);
  }
}

TEST(Pointwise, UnaryOnIntegersIsExact) {
  const std::int64_t big = (std::int64_t{1} << 60) + 1, least = std::numeric_limits<std::int64_t>::min();
  EXPECT_EQ(evaluate(ops::Neg, {ints({2}, {big, least})}).to_ints(), (std::vector<std::int64_t>{-big, least}));
  EXPECT_EQ(evaluate(ops::Abs, {ints({2}, {-big, 3})}).to_ints(), (std::vector<std::int64_t>{big, 3}));
  EXPECT_EQ(evaluate(ops::Sign, {ints({3}, {-big, 0, 9})}).to_ints(), (std::vector<std::int64_t>{-1, 0, 1}));
  EXPECT_EQ(evaluate(ops::Relu, {ints({2}, {-4, 4}, DType::i32)}).to_ints(), (std::vector<std::int64_t>{0, 4}));
}

TEST(Pointwise, TestsGiveBooleans) {
  const Tensor x = numbers({4}, {1, kNan, kInf, -kInf});
  EXPECT_EQ(evaluate(ops::IsNaN, {x}).to_ints(), (std::vector<std::int64_t>{0, 1, 0, 0}));
  EXPECT_EQ(evaluate(ops::IsInf, {x}).to_ints(), (std::vector<std::int64_t>{0, 0, 1, 1}));
  EXPECT_EQ(evaluate(ops::IsInf, {x}, {{"negative", false}}).to_ints(), (std::vector<std::int64_t>{0, 0, 1, 0}));
  EXPECT_EQ(evaluate(ops::IsInf, {x}, {{"positive", false}}).to_ints(), (std::vector<std::int64_t>{0, 0, 0, 1}));
  EXPECT_EQ(evaluate(ops::Not, {ints({2}, {0, 1}, DType::boolean)}).to_ints(), (std::vector<std::int64_t>{1, 0}));
}

TEST(Pointwise, RefusesOtherTypes) {
  expect_error(ErrorCode::invalid_model, "expected a float type", [] { infer(ops::Exp, {type_of(DType::i64, "2")}); });
  expect_error(ErrorCode::invalid_model, "expected bool", [] { infer(ops::Not, {type_of(DType::f32, "2")}); });
  expect_error(ErrorCode::invalid_model, "expected a number type", [] {
    infer(ops::Add, {type_of(DType::boolean, "2"), type_of(DType::boolean, "2")});
  });
  expect_error(ErrorCode::invalid_model, "operand 1 is i64, expected f32", [] {
    infer(ops::Add, {type_of(DType::f32, "2"), type_of(DType::i64, "2")});
  });
  expect_error(ErrorCode::invalid_model, "do not broadcast", [] { infer(ops::Mul, {type_of(DType::f32, "2"), type_of(DType::f32, "3")}); });
  expect_error(ErrorCode::invalid_model, "expected bool", [] {
    infer(ops::Where, {type_of(DType::i64, "2"), type_of(DType::f32, "2"), type_of(DType::f32, "2")});
  });
}

struct BinaryCase {
  std::string_view op;
  std::vector<double> a, b, out;
  DType dtype = DType::f64;
  NamedAttributes attributes{};
};

const std::vector<BinaryCase> kBinary = {
    {"Add", {1, kInf}, {2, 1}, {3, kInf}},
    {"Sub", {1, 2}, {3, 5}, {-2, -3}},
    {"Mul", {2, -3}, {4, 0.5}, {8, -1.5}},
    {"Div", {1, -1, 1}, {4, 0, 0}, {0.25, -kInf, kInf}},
    {"Div", {7, -7, 7, -7}, {2, 2, -2, -2}, {3, -3, -3, 3}, DType::i32},
    {"Pow", {2, 9, 2}, {10, 0.5, -1}, {1024, 3, 0.5}},
    {"Pow", {3, -1, 2, -1}, {4, 3, -1, -2}, {81, -1, 0, 1}, DType::i64},
    {"Min", {1, kNan, 2, -1}, {2, 1, kNan, -2}, {1, kNan, kNan, -2}},
    {"Max", {1, kNan, 2, -1}, {2, 1, kNan, -2}, {2, kNan, kNan, -1}},
    {"Mod", {-5, 5, -5, 5}, {3, 3, -3, -3}, {1, 2, -2, -1}, DType::i64},
    {"Mod", {-5, 5, -5, 5}, {3, 3, -3, -3}, {-2, 2, -2, 2}, DType::i64, {{"fmod", true}}},
    {"Mod", {-5, 5, -5, 5.5}, {3, 3, -3, -3}, {-2, 2, -2, 2.5}, DType::f32, {{"fmod", true}}},
    {"Equal", {1, kNan, 2}, {1, kNan, 3}, {1, 0, 0}},
    {"Less", {1, 2, 3}, {2, 2, 2}, {1, 0, 0}},
    {"LessOrEqual", {1, 2, 3}, {2, 2, 2}, {1, 1, 0}},
    {"Greater", {1, 2, 3}, {2, 2, 2}, {0, 0, 1}},
    {"GreaterOrEqual", {1, 2, 3}, {2, 2, 2}, {0, 1, 1}},
    {"And", {0, 0, 1, 1}, {0, 1, 0, 1}, {0, 0, 0, 1}, DType::boolean},
    {"Or", {0, 0, 1, 1}, {0, 1, 0, 1}, {0, 1, 1, 1}, DType::boolean},
    {"Xor", {0, 0, 1, 1}, {0, 1, 0, 1}, {0, 1, 1, 0}, DType::boolean},
};

TEST(Pointwise, BinaryValues) {
  for (const BinaryCase& c : kBinary) {
    SCOPED_TRACE(c.op);
    const Shape shape = {static_cast<std::int64_t>(c.a.size())};
    expect_near(evaluate(*all_ops().find(c.op), {numbers(shape, c.a, c.dtype), numbers(shape, c.b, c.dtype)}, c.attributes), c.out, 1e-12);
  }
}

TEST(Pointwise, IntegersWrapAndDoNotPassThroughDouble) {
  const std::int64_t most = std::numeric_limits<std::int64_t>::max(), least = std::numeric_limits<std::int64_t>::min();
  EXPECT_EQ(evaluate(ops::Add, {ints({2}, {most, most - 1}), ints({}, {1})}).to_ints(), (std::vector<std::int64_t>{least, most}));
  EXPECT_EQ(evaluate(ops::Div, {ints({1}, {least}), ints({1}, {-1})}).to_ints(), std::vector<std::int64_t>{least});
  EXPECT_EQ(evaluate(ops::Mul, {ints({1}, {100}, DType::i8), ints({1}, {2}, DType::i8)}).to_ints(), std::vector<std::int64_t>{-56});
  EXPECT_EQ(evaluate(ops::Less, {ints({1}, {most - 1}), ints({1}, {most})}).to_ints(), std::vector<std::int64_t>{1});
  expect_error(ErrorCode::invalid_argument, "by zero", [] { evaluate(ops::Div, {ints({1}, {1}), ints({1}, {0})}); });
  expect_error(ErrorCode::invalid_argument, "by zero", [] { evaluate(ops::Mod, {ints({1}, {1}), ints({1}, {0})}); });
}

TEST(Pointwise, Broadcasts) {
  const Tensor a = numbers({2, 1}, {10, 20}), b = numbers({3}, {1, 2, 3});
  const Tensor y = evaluate(ops::Add, {a, b});
  EXPECT_EQ(y.shape(), (Shape{2, 3}));
  expect_near(y, {11, 12, 13, 21, 22, 23});
  EXPECT_EQ(evaluate(ops::Add, {numbers({0, 1}, {}), b}).shape(), (Shape{0, 3}));
  const Tensor z = evaluate(ops::Where, {ints({2, 1}, {1, 0}, DType::boolean), numbers({}, {7}), b});
  EXPECT_EQ(z.shape(), (Shape{2, 3}));
  expect_near(z, {7, 7, 7, 1, 2, 3});
}

TEST(Pointwise, WhereKeepsLargeIntegers) {
  const std::int64_t big = (std::int64_t{1} << 60) + 1;
  EXPECT_EQ(evaluate(ops::Where, {ints({2}, {1, 0}, DType::boolean), ints({2}, {big, 0}), ints({2}, {0, big})}).to_ints(),
            (std::vector<std::int64_t>{big, big}));
}

TEST(Pointwise, CastTruncatesSaturatesAndTests) {
  const Tensor x = numbers({6}, {1.9, -1.9, 300, -300, kNan, 0});
  EXPECT_EQ(evaluate(ops::Cast, {x}, {{"to", DType::i32}}).to_ints(), (std::vector<std::int64_t>{1, -1, 300, -300, 0, 0}));
  EXPECT_EQ(evaluate(ops::Cast, {x}, {{"to", DType::i8}}).to_ints(), (std::vector<std::int64_t>{1, -1, 127, -128, 0, 0}));
  EXPECT_EQ(evaluate(ops::Cast, {x}, {{"to", DType::boolean}}).to_ints(), (std::vector<std::int64_t>{1, 1, 1, 1, 1, 0}));
  expect_near(evaluate(ops::Cast, {numbers({2}, {1.0009765625, 70000})}, {{"to", DType::f16}}), {1.0009765625, kInf}, 0);
  EXPECT_EQ(evaluate(ops::Cast, {ints({2}, {257, -1})}, {{"to", DType::u8}}).to_ints(), (std::vector<std::int64_t>{1, 255}));
}

TEST(Pointwise, SixteenBitResultsAreRounded) {
  expect_near(evaluate(ops::Add, {numbers({1}, {2048}, DType::f16), numbers({1}, {1}, DType::f16)}), {2048}, 0);
  expect_near(evaluate(ops::Mul, {numbers({1}, {1.0078125}, DType::bf16), numbers({1}, {1.0078125}, DType::bf16)}), {1.015625}, 0);
}

TEST(Pointwise, FoldFollowsDims) {
  EXPECT_EQ(folded(ops::Add, {"S,2", "1"}), "S+1,3");
  EXPECT_EQ(folded(ops::Sub, {"S", "S"}), "0");
  EXPECT_EQ(folded(ops::Mul, {"S,B", "4,B"}), Dim::parse("4*S").to_string() + "," + Dim::parse("B*B").to_string());
  EXPECT_EQ(folded(ops::Div, {"4*S", "4"}), "S");
  EXPECT_EQ(folded(ops::Div, {"S", "2"}), floor_div(Dim::parse("S"), 2).to_string());
  EXPECT_EQ(folded(ops::Div, {"-7", "2"}), "-3");
  EXPECT_EQ(folded(ops::Div, {"S - 8", "2"}), "?");
  EXPECT_EQ(folded(ops::Div, {"S - 1", "2"}), "floordiv(max(0,S-1),2)");
  EXPECT_EQ(folded(ops::Div, {"S", "0"}), "?");
  EXPECT_EQ(folded(ops::Mod, {"S", "2"}), mod(Dim::parse("S"), 2).to_string());
  EXPECT_EQ(folded(ops::Mod, {"-5", "3"}), "1");
  EXPECT_EQ(folded(ops::Mod, {"-5", "3"}, {{"fmod", true}}), "?");
  EXPECT_EQ(folded(ops::Min, {"S", "S"}), "S");
  EXPECT_EQ(folded(ops::Max, {"3", "5"}), "5");
  EXPECT_EQ(folded(ops::Neg, {"S"}), (Dim(0) - Dim::parse("S")).to_string());
  EXPECT_EQ(folded(ops::Abs, {"S"}), "S");
  EXPECT_EQ(folded(ops::Abs, {"S - 1"}), "?");
  EXPECT_EQ(folded(ops::Sign, {"S + 1"}), "1");
  EXPECT_EQ(folded(ops::Cast, {"S,3"}, {{"to", DType::i32}}), "S,3");
  EXPECT_EQ(folded(ops::Cast, {"S"}, {{"to", DType::f32}}), "?");
  EXPECT_EQ(folded(ops::Cast, {"S + 1,0"}, {{"to", DType::boolean}}), "1,0");
  EXPECT_EQ(folded(ops::Cast, {"S"}, {{"to", DType::boolean}}), "?");
}

TEST(Pointwise, FoldDecidesOnlyWhatHoldsForAllExtents) {
  EXPECT_EQ(folded(ops::Equal, {"S,S,3", "S,-1,3"}), "1,0,1");
  EXPECT_EQ(folded(ops::Equal, {"S", "1"}), "?");
  EXPECT_EQ(folded(ops::Less, {"S", "0"}), "0");
  EXPECT_EQ(folded(ops::Less, {"S", "S + 1"}), "1");
  EXPECT_EQ(folded(ops::Less, {"S", "4"}), "?");
  EXPECT_EQ(folded(ops::Greater, {"S", "-1"}), "1");
  EXPECT_EQ(folded(ops::GreaterOrEqual, {"S", "0"}), "1");
  EXPECT_EQ(folded(ops::LessOrEqual, {"P + S", "S"}), "?");
  EXPECT_EQ(folded(ops::LessOrEqual, {"S", "P + S"}), "1");
  EXPECT_EQ(folded(ops::And, {"1,1", "0,1"}, {}, DType::boolean), "0,1");
  EXPECT_EQ(folded(ops::Or, {"0,1", "0,1"}, {}, DType::boolean), "0,1");
  EXPECT_EQ(folded(ops::Xor, {"0,1", "1,1"}, {}, DType::boolean), "1,0");
  EXPECT_EQ(folded(ops::Not, {"0,1"}, {}, DType::boolean), "1,0");
  EXPECT_EQ(folded(ops::Where, {"1,0", "S,S", "4,4"}), "S,4");
}

TEST(Pointwise, Rules) {
  const Type x = type_of(DType::f32, "B,S,8"), bias = type_of(DType::f32, "8"), row = type_of(DType::f32, "B,1,8");
  EXPECT_EQ(rule_text(ops::Exp, {x}), "a b c -> a b c");
  EXPECT_EQ(rule_text(ops::Add, {x, bias}), "a b c, c -> a b c");
  EXPECT_EQ(rule_text(ops::Mul, {row, x}), "a 1 c, a b c -> a b c");
  EXPECT_EQ(rule_text(ops::Where, {type_of(DType::boolean, "S,1"), x, type_of(DType::f32, "")}), "b 1, a b c,  -> a b c");
  // Padding is zeros, by which no integer is divided.
  const Type numbers = type_of(DType::i64, "B,8"), divisors = type_of(DType::i64, "8"), one = type_of(DType::i64, "");
  for (const OpDef* op : {&ops::Div, &ops::Mod}) {
    EXPECT_EQ(rule_text(*op, {numbers, divisors}), "a b!, b! -> a b!");
    EXPECT_EQ(rule_text(*op, {numbers, one}), "a b,  -> a b");
    EXPECT_EQ(rule_text(*op, {x, bias}), "a b c, c -> a b c");
  }
  const OpCall add = call_of(ops::Add, {x, bias}), mul = call_of(ops::Mul, {x, bias}), div = call_of(ops::Div, {x, bias});
  EXPECT_TRUE(add.op->rule(add).linear.empty());
  EXPECT_EQ(mul.op->rule(mul).linear, (std::vector<bool>{true, true}));
  EXPECT_EQ(div.op->rule(div).linear, (std::vector<bool>{true, false}));
}

TEST(Gated, HalvesOfTheLastDimension) {
  expect_near(evaluate(ops::Gated, {numbers({2, 4}, {1, -2, 3, 4, 0, 5, 6, -7})}, {{"activation", std::string("relu")}}), {3, 0, 0, -35});
  expect_near(evaluate(ops::Gated, {numbers({2}, {2, 3})}), {2 / (1 + std::exp(-2.0)) * 3});
  expect_error(ErrorCode::invalid_model, "two halves", [] { infer(ops::Gated, {type_of(DType::f32, "B,5")}); });
  expect_error(ErrorCode::invalid_model, "a float type", [] { infer(ops::Gated, {type_of(DType::i64, "B,4")}); });
}

}  // namespace
}  // namespace tandem::testing
