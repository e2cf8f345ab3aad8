#include <cmath>

#include "ops/op_test.h"

namespace tandem::testing {
namespace {

TEST(MatMul, Values) {
  const Tensor a = numbers({2, 2}, {1, 2, 3, 4}), b = numbers({2, 3}, {1, 0, -1, 2, 1, 0});
  expect_near(evaluate(ops::MatMul, {a, b}), {5, 2, -1, 11, 4, -3});
  expect_near(evaluate(ops::MatMul, {ints({1, 2}, {3, 4}), ints({2, 1}, {5, 6})}), {39});
}

TEST(MatMul, BiasActivationResidual) {
  const Tensor a = numbers({1, 2}, {1, -1}), b = numbers({2, 2}, {1, 2, 3, 1}), bias = numbers({2}, {0.5, 0.5}),
               residual = numbers({1, 2}, {10, 20});
  expect_near(evaluate(ops::MatMul, {a, b, bias}), {-1.5, 1.5});
  expect_near(evaluate(ops::MatMul, {a, b, bias}, {{"activation", std::string("relu")}}), {0, 1.5});
  expect_near(evaluate(ops::MatMul, {a, b, bias, residual}, {{"activation", std::string("relu")}}), {10, 21.5});
  expect_near(evaluate(ops::MatMul, {a, b, std::nullopt, residual}), {8, 21});
  const auto activated = [&](const char* word) { return evaluate(ops::MatMul, {a, b}, {{"activation", std::string(word)}}).to_doubles(); };
  EXPECT_NEAR(activated("gelu")[1], 0.841345, 1e-6);
  EXPECT_NEAR(activated("gelu_tanh")[1], 0.841192, 1e-6);
  EXPECT_NEAR(activated("silu")[0], -0.238406, 1e-6);
  EXPECT_NEAR(activated("tanh")[0], -0.964028, 1e-6);
  EXPECT_NEAR(activated("sigmoid")[0], 0.119203, 1e-6);
}

TEST(MatMul, BatchesBroadcast) {
  const Tensor a = waves(1, {2, 1, 3, 4}), b = waves(2, {5, 4, 2});
  const Tensor y = evaluate(ops::MatMul, {a, b});
  ASSERT_EQ(y.shape(), (Shape{2, 5, 3, 2}));
  for (int i = 0; i < 2; ++i)
    for (int j = 0; j < 5; ++j)
      for (int m = 0; m < 3; ++m)
        for (int n = 0; n < 2; ++n) {
          double sum = 0;
          for (int k = 0; k < 4; ++k) sum += a.at((i * 3 + m) * 4 + k) * b.at((j * 4 + k) * 2 + n);
          EXPECT_NEAR(y.at(((i * 5 + j) * 3 + m) * 2 + n), sum, 1e-6);
        }
}

TEST(MatMul, NothingToSum) {
  expect_near(evaluate(ops::MatMul, {numbers({2, 0}, {}), numbers({0, 2}, {})}), {0, 0, 0, 0});
  EXPECT_EQ(evaluate(ops::MatMul, {numbers({0, 2}, {}), numbers({2, 2}, {1, 2, 3, 4})}).shape(), (Shape{0, 2}));
}

TEST(MatMul, InferenceErrors) {
  const auto f32 = [](const char* dims) { return type_of(DType::f32, dims); };
  EXPECT_EQ(infer(ops::MatMul, {f32("B,S,8"), f32("8,32")}), (std::vector<Type>{f32("B,S,32")}));
  expect_error(ErrorCode::invalid_model, "8 columns meet 7 rows", [&] { infer(ops::MatMul, {f32("S,8"), f32("7,3")}); });
  expect_error(ErrorCode::invalid_model, "must be matrices", [&] { infer(ops::MatMul, {f32("8"), f32("8,3")}); });
  expect_error(ErrorCode::invalid_model, "do not broadcast", [&] { infer(ops::MatMul, {f32("2,4,8"), f32("3,8,3")}); });
  expect_error(ErrorCode::invalid_model, "bias and columns differ", [&] { infer(ops::MatMul, {f32("4,8"), f32("8,3"), f32("4")}); });
  expect_error(ErrorCode::invalid_model, "residual", [&] { infer(ops::MatMul, {f32("4,8"), f32("8,3"), std::nullopt, f32("3")}); });
  expect_error(ErrorCode::invalid_model, "is f16", [&] { infer(ops::MatMul, {f32("4,8"), type_of(DType::f16, "8,3")}); });
  expect_error(ErrorCode::invalid_model, "not one of", [&] {
    infer(ops::MatMul, {f32("4,8"), f32("8,3")}, {{"activation", std::string("cube")}});
  });
}

TEST(MatMul, Rule) {
  const auto f32 = [](const char* dims) { return type_of(DType::f32, dims); };
  EXPECT_EQ(rule_text(ops::MatMul, {f32("B,S,8"), f32("8,32")}), "a b c+sum, c+sum d -> a b d");
  EXPECT_EQ(rule_text(ops::MatMul, {f32("B,S,8"), f32("8,32"), f32("32")}), "a b c+sum, c+sum d, d -> a b d");
  EXPECT_EQ(rule_text(ops::MatMul, {f32("B,S,8"), f32("8,32"), std::nullopt, f32("B,S,32")}), "a b c+sum, c+sum d, , a b d -> a b d");
  EXPECT_EQ(rule_text(ops::MatMul, {f32("B,12,S,8"), f32("B,1,8,T")}), "a b c d+sum, a 1 d+sum e -> a b c e");
  const OpCall pure = call_of(ops::MatMul, {f32("S,8"), f32("8,32")}), biased = call_of(ops::MatMul, {f32("S,8"), f32("8,32"), f32("32")});
  EXPECT_EQ(ops::MatMul.rule(pure).linear, (std::vector<bool>{true, true, false, false}));
  EXPECT_EQ(ops::MatMul.rule(biased).linear, (std::vector<bool>{false, false, false, false}));
}

TEST(MatMulImport, VectorsBecomeMatrices) {
  Imported both("MatMul", 13);
  both.input(numbers({2}, {1, 2})).input(numbers({2}, {3, 4}));
  const Tensor dot = both.evaluate();
  EXPECT_EQ(dot.shape(), Shape{});
  expect_near(dot, {11});
  Imported row("MatMul", 13);
  const Tensor y = row.input(numbers({2}, {1, 2})).input(numbers({3, 2, 2}, {1, 0, 0, 1, 1, 1, 1, 1, 2, 0, 0, 2})).evaluate();
  EXPECT_EQ(y.shape(), (Shape{3, 2}));
  expect_near(y, {1, 2, 3, 3, 2, 4});
  Imported column("MatMul", 13);
  const Tensor z = column.input(numbers({2, 2}, {1, 2, 3, 4})).input(numbers({2}, {1, -1})).evaluate();
  EXPECT_EQ(z.shape(), Shape{2});
  expect_near(z, {-1, -1});
}

TEST(MatMulImport, RecordsWhatMustAgree) {
  Imported program("MatMul", 13);
  program.input(type_of(DType::f32, "B,S,T")).input(type_of(DType::f32, "P+S,8")).run_rule();
  ASSERT_EQ(program.graph.constraints.size(), 1u);
  EXPECT_EQ(program.graph.constraints[0].left, Dim::parse("T"));
  EXPECT_EQ(program.graph.constraints[0].right, Dim::parse("P+S"));
}

TEST(MatMulImport, Gemm) {
  Imported program("Gemm", 13);
  program.input(waves(1, {3, 2}))
      .input(waves(2, {4, 3}))
      .input(waves(3, {4}))
      .with("transA", std::int64_t{1})
      .with("transB", std::int64_t{1});
  program.with("alpha", 0.5).with("beta", 2.0);
  expect_near(program.evaluate(), {0.887331, -1.524541, -2.03892, -1.249729, 0.866884, -1.141268, -2.405462, -1.262908});
  Imported plain("Gemm", 13);
  plain.input(type_of(DType::f32, "B,4")).input(type_of(DType::f32, "4,8"));
  EXPECT_EQ(plain.run_rule(), std::vector<std::string>{"MatMul"});
  Imported cube("Gemm", 13);
  cube.input(type_of(DType::f32, "B,2,4")).input(type_of(DType::f32, "4,8"));
  expect_error(ErrorCode::invalid_model, "rank 2", [&] { cube.run_rule(); });
}

}  // namespace
}  // namespace tandem::testing
