// What evaluators make of NaN and infinities: they are what kernels are compared with.
#include <cmath>
#include <limits>

#include "ops/op_test.h"

namespace tandem::testing {
namespace {

constexpr double kInf = std::numeric_limits<double>::infinity(), kNan = std::numeric_limits<double>::quiet_NaN();
using Ints = std::vector<std::int64_t>;
using Values = std::vector<double>;

TEST(NonFinite, FunctionsOfOne) {
  // Of NaN, ∞ and −∞, as their formulas give them: x·Φ(x) and x·sigmoid(x) are −∞·0 at −∞.
  const std::map<std::string, Values> expected = {
      {"Abs", {kNan, kInf, kInf}},
      {"Ceil", {kNan, kInf, -kInf}},
      {"Cos", {kNan, kNan, kNan}},
      {"Elu", {kNan, kInf, -1}},
      {"Erf", {kNan, 1, -1}},
      {"Exp", {kNan, kInf, 0}},
      {"Floor", {kNan, kInf, -kInf}},
      {"Gelu", {kNan, kInf, kNan}},
      {"HardSigmoid", {kNan, 1, 0}},
      {"HardSwish", {kNan, kInf, kNan}},
      {"LeakyRelu", {kNan, kInf, -kInf}},
      {"Log", {kNan, kInf, kNan}},
      {"Neg", {kNan, -kInf, kInf}},
      {"Reciprocal", {kNan, 0, 0}},
      {"Relu", {kNan, kInf, 0}},
      {"Round", {kNan, kInf, -kInf}},
      {"Sigmoid", {kNan, 1, 0}},
      {"Sign", {kNan, 1, -1}},
      {"Silu", {kNan, kInf, kNan}},
      {"Sin", {kNan, kNan, kNan}},
      {"Softplus", {kNan, kInf, 0}},
      {"Sqrt", {kNan, kInf, kNan}},
      {"Tanh", {kNan, 1, -1}},
      {"IsNaN", {1, 0, 0}},
      {"IsInf", {0, 1, 1}},
  };
  const Tensor x = numbers({3}, {kNan, kInf, -kInf});
  for (const OpDef* op : all_ops().all()) {
    if (!op->pointwise || op->max_operands != 1 || op->name == "Not" || op->name == "Cast") continue;
    SCOPED_TRACE(op->name);
    const auto row = expected.find(std::string(op->name));
    ASSERT_NE(row, expected.end());
    expect_near(evaluate(*op, {x}), row->second);
  }
}

TEST(NonFinite, FunctionsOfTwo) {
  const Values a = {kNan, 1, kInf, kInf, 0, 1, -kInf, 0}, b = {0, kNan, kInf, -kInf, kInf, -kInf, 3, -kInf};
  const std::map<std::string, Values> expected = {
      {"Add", {kNan, kNan, kInf, kNan, kInf, -kInf, -kInf, -kInf}},
      {"Sub", {kNan, kNan, kNan, kInf, -kInf, kInf, -kInf, kInf}},
      {"Mul", {kNan, kNan, kInf, -kInf, kNan, -kInf, -kInf, kNan}},
      {"Div", {kNan, kNan, kNan, kNan, 0, 0, -kInf, 0}},
      {"Max", {kNan, kNan, kInf, kInf, kInf, 1, 3, 0}},
      {"Min", {kNan, kNan, kInf, -kInf, 0, -kInf, -kInf, -kInf}},
      {"Mod", {kNan, kNan, kNan, kNan, 0, -kInf, kNan, 0}},
      {"Pow", {1, 1, kInf, 0, 0, 1, -kInf, kInf}},
      {"Equal", {0, 0, 1, 0, 0, 0, 0, 0}},
      {"Greater", {0, 0, 0, 1, 0, 1, 0, 1}},
      {"GreaterOrEqual", {0, 0, 1, 1, 0, 1, 0, 1}},
      {"Less", {0, 0, 0, 0, 1, 0, 1, 0}},
      {"LessOrEqual", {0, 0, 1, 0, 1, 0, 1, 0}},
  };
  for (const OpDef* op : all_ops().all()) {
    if (!op->pointwise || op->max_operands != 2 || op->name == "And" || op->name == "Or" || op->name == "Xor") continue;
    SCOPED_TRACE(op->name);
    const auto row = expected.find(std::string(op->name));
    ASSERT_NE(row, expected.end());
    expect_near(evaluate(*op, {numbers({8}, a), numbers({8}, b)}), row->second);
  }
}

TEST(NonFinite, Reductions) {
  const Tensor x = numbers({4, 3}, {1, kNan, 2, 1, kInf, 2, -kInf, 3, 4, kInf, -kInf, 0});
  const std::map<std::string, Values> expected = {{"sum", {kNan, kInf, -kInf, kNan}},
                                                  {"mean", {kNan, kInf, -kInf, kNan}},
                                                  {"max", {kNan, kInf, 4, kInf}},
                                                  {"min", {kNan, 1, -kInf, -kInf}},
                                                  {"prod", {kNan, kInf, -kInf, kNan}},
                                                  {"l1", {kNan, kInf, kInf, kInf}},
                                                  {"l2", {kNan, kInf, kInf, kInf}},
                                                  {"sum_square", {kNan, kInf, kInf, kInf}},
                                                  {"log_sum_exp", {kNan, kInf, 4 + std::log1p(std::exp(-1.0)), kInf}}};
  for (const auto& [kind, values] : expected) {
    SCOPED_TRACE(kind);
    expect_near(evaluate(ops::Reduce, {x}, {{"kind", kind}, {"axes", Ints{1}}, {"keepdims", false}}), values);
  }
  expect_near(evaluate(ops::CumSum, {numbers({2, 4}, {1, kNan, 2, kInf, kInf, 1, -kInf, 1})}, {{"axis", std::int64_t{1}}}),
              {1, kNan, kNan, kNan, kInf, kInf, kNan, kNan});
}

TEST(NonFinite, ProductsAndConvolutions) {
  expect_near(evaluate(ops::MatMul, {numbers({4, 2}, {1, kNan, kInf, 1, kInf, -kInf, 0, 1}), numbers({2, 1}, {1, 2})}),
              {kNan, kInf, kNan, 2});
  expect_near(evaluate(ops::MatMul, {numbers({2, 2}, {0, 1, 1, 1}), numbers({2, 1}, {-kInf, 2})}), {kNan, -kInf});
  const auto conv = [](const Values& x, const Values& w, std::int64_t pad) {
    const auto size = [](const Values& v) { return static_cast<std::int64_t>(v.size()); };
    return evaluate(ops::Conv, {numbers({1, 1, size(x)}, x), numbers({1, 1, size(w)}, w)}, {{"pads", std::vector<Dim>{pad, pad}}});
  };
  expect_near(conv({1, kNan, 1, 1, kInf}, {1, 1}, 0), {kNan, kNan, 2, kInf});
  expect_near(conv({1, 2}, {kInf, 1}, 1), {1, kInf, kInf});  // padding is not multiplied
}

TEST(NonFinite, Windows) {
  const Tensor x = numbers({1, 1, 6}, {1, kNan, 2, -kInf, -kInf, kInf});
  expect_near(evaluate(ops::MaxPool, {x}, {{"kernel", Ints{2}}}), {kNan, kNan, 2, -kInf, kInf});
  expect_near(evaluate(ops::AveragePool, {x}, {{"kernel", Ints{2}}}), {kNan, kNan, -kInf, -kInf, kNan});
  const NamedAttributes linear = {{"sizes", std::vector<Dim>{4}}, {"mode", std::string("linear")}};
  expect_near(evaluate(ops::Resize, {numbers({1, 1, 2}, {0, kInf})}, linear), {0, kInf, kInf, kInf});  // a weight of zero sees nothing
}

TEST(NonFinite, NormsAndSoftmax) {
  const Tensor x = numbers({3, 2}, {1, kNan, kInf, 1, -kInf, kInf}), ones = numbers({2}, {1, 1}), zeros = numbers({2}, {0, 0});
  expect_near(evaluate(ops::LayerNorm, {x, ones, zeros}), Values(6, kNan));
  expect_near(evaluate(ops::RmsNorm, {x, ones}), {kNan, kNan, kNan, 0, kNan, kNan});
  expect_near(evaluate(ops::RmsNorm, {numbers({1, 2}, {3, 3}), numbers({2}, {kInf, kNan})}, {{"epsilon", 0.0}}), {kInf, kNan});
  expect_near(evaluate(ops::GroupNorm, {numbers({1, 2, 2}, {1, kNan, 1, -1}), ones, zeros}, {{"epsilon", 0.0}}), {kNan, kNan, 1, -1});
  expect_near(evaluate(ops::Softmax, {numbers({2, 2}, {kInf, 0, 0, -kInf})}), {kNan, kNan, 1, 0});
  expect_near(evaluate(ops::LogSoftmax, {numbers({3, 2}, {kInf, 0, 0, -kInf, kNan, 0})}), {kNan, kNan, 0, -kInf, kNan, kNan});
}

TEST(NonFinite, ChosenAndRotated) {
  const Tensor x = numbers({2, 2}, {kNan, kInf, -kInf, kNan});
  expect_near(evaluate(ops::Where, {ints({2}, {1, 0}, DType::boolean), x, numbers({2, 2}, {1, 2, 3, 4})}), {kNan, 2, -kInf, 4});
  expect_near(evaluate(ops::Trilu, {x}), {kNan, kInf, 0, kNan});
  expect_near(evaluate(ops::Gated, {numbers({1, 4}, {kInf, 1, 0, kNan})}, {{"activation", std::string("none")}}), {kNan, kNan});
  expect_near(evaluate(ops::RotaryEmbedding, {numbers({1, 1, 1, 2}, {kInf, 1}), numbers({1, 1, 1}, {1}), numbers({1, 1, 1}, {0})}),
              {kInf, kNan});
}

}  // namespace
}  // namespace tandem::testing
