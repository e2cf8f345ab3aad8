// Norms, softmax, reductions and other ops that mix elements along axes. Literal values are those of onnx.reference.
#include <cmath>
#include <limits>

#include "ops/op_test.h"

namespace tandem::testing {
namespace {

constexpr double kInf = std::numeric_limits<double>::infinity(), kNan = std::numeric_limits<double>::quiet_NaN();

NamedAttributes axis(std::int64_t value) { return {{"axis", value}}; }

const std::vector<double> kLayerNorm = {0.972544,  -0.052915, -1.128328, -0.79563,  0.567437,  1.292301,
                                        -1.390966, -0.928882, -0.971208, -1.638658, -1.536422, -0.204529};

TEST(Norm, LayerNorm) {
  const NamedAttributes attributes = {{"axis", std::int64_t{1}}, {"epsilon", 1e-3}};
  expect_near(evaluate(ops::LayerNorm, {waves(1, {2, 3, 2}), waves(2, {3, 2}), waves(3, {3, 2})}, attributes), kLayerNorm);
  expect_near(evaluate(ops::LayerNorm, {numbers({1, 2}, {1, 3}), numbers({2}, {1, 2})}, {{"epsilon", 0.0}}), {-1, 2});
}

TEST(Norm, RmsNorm) {
  expect_near(evaluate(ops::RmsNorm, {waves(1, {2, 3}), waves(2, {3})}, {{"epsilon", 1e-2}}),
              {0.898058, 0.497437, -0.202592, 0.056121, -0.388142, 0.37078});
}

TEST(Norm, AddingFirstIsTheSame) {
  const Tensor x = waves(1, {4, 6}), residual = waves(5, {4, 6}), scale = waves(2, {6}), bias = waves(3, {6});
  const Tensor sum = evaluate(ops::Add, {x, residual});
  const auto layer = evaluate_all(ops::AddLayerNorm, {x, residual, scale, bias});
  expect_near(layer[1], sum.to_doubles(), 0);
  expect_near(layer[0], evaluate(ops::LayerNorm, {sum, scale, bias}).to_doubles(), 0);
  const auto rms = evaluate_all(ops::AddRmsNorm, {x, residual, scale});
  expect_near(rms[1], sum.to_doubles(), 0);
  expect_near(rms[0], evaluate(ops::RmsNorm, {sum, scale}).to_doubles(), 0);
}

TEST(Norm, AnOffsetIsAddedToEveryRow) {
  const Tensor x = waves(1, {4, 6}), residual = waves(5, {4, 6}), scale = waves(2, {6}), bias = waves(3, {6}), offset = waves(7, {6});
  const Tensor sum = evaluate(ops::Add, {evaluate(ops::Add, {x, offset}), residual});
  const auto layer = evaluate_all(ops::AddLayerNorm, {x, residual, scale, bias, offset});
  expect_near(layer[1], sum.to_doubles());
  expect_near(layer[0], evaluate(ops::LayerNorm, {sum, scale, bias}).to_doubles());
  const auto rms = evaluate_all(ops::AddRmsNorm, {x, residual, scale, offset});
  expect_near(rms[1], sum.to_doubles());
  expect_near(rms[0], evaluate(ops::RmsNorm, {sum, scale}).to_doubles());
}

TEST(Norm, InferenceErrorsAndRule) {
  const auto f32 = [](const char* dims) { return type_of(DType::f32, dims); };
  expect_error(ErrorCode::invalid_model, "do not broadcast", [&] { infer(ops::LayerNorm, {f32("B,S,8"), f32("7")}); });
  expect_error(ErrorCode::invalid_model, "expected to broadcast", [&] { infer(ops::LayerNorm, {f32("B,S,8"), f32("S,8")}); });
  expect_error(ErrorCode::invalid_model, "axis 3 is outside rank 3", [&] { infer(ops::RmsNorm, {f32("B,S,8"), f32("8")}, axis(3)); });
  expect_error(ErrorCode::invalid_model, "expected a float", [&] {
    infer(ops::RmsNorm, {type_of(DType::i32, "8"), type_of(DType::i32, "8")});
  });
  EXPECT_EQ(rule_text(ops::LayerNorm, {f32("B,S,8"), f32("8"), f32("8")}), "a b c!, c!, c! -> a b c!");
  EXPECT_EQ(rule_text(ops::LayerNorm, {f32("B,S,8"), f32("S,8")}, axis(1)), "a b! c!, b! c! -> a b! c!");
  EXPECT_EQ(rule_text(ops::AddRmsNorm, {f32("B,S,8"), f32("B,S,8"), f32("8")}), "a b c!, a b c!, c! -> a b c!, a b c!");
}

TEST(NormImport, ConvertsToOurs) {
  Imported layer("LayerNormalization", 17);
  layer.input(waves(1, {2, 3, 2})).input(waves(2, {3, 2})).input(waves(3, {3, 2})).with("axis", std::int64_t{1}).with("epsilon", 1e-3);
  expect_near(layer.evaluate(), kLayerNorm);
  Imported statistic("LayerNormalization", 17);
  statistic.input(waves(1, {2, 3})).input(waves(2, {3}));
  statistic.node.outputs = {"y", "mean"};
  expect_error(ErrorCode::unsupported, "output 1", [&] { statistic.run_rule(); });
  Imported mixed("RMSNormalization", 23);
  mixed.input(type_of(DType::f16, "B,8")).input(type_of(DType::f32, "8"));
  EXPECT_EQ(mixed.run_rule(), (std::vector<std::string>{"Cast", "RmsNorm"}));
  EXPECT_EQ(mixed.results[0]->type, type_of(DType::f32, "B,8"));
}

TEST(Softmax, Values) {
  const std::vector<double> soft = {0.480577, 0.655189, 0.407068, 0.253367, 0.112355, 0.091444,
                                    0.092506, 0.138463, 0.305597, 0.471028, 0.601897, 0.390509};
  expect_near(evaluate(ops::Softmax, {waves(1, {2, 3, 2})}, axis(1)), soft);
  std::vector<double> logs;
  for (const double v : soft) logs.push_back(std::log(v));
  expect_near(evaluate(ops::LogSoftmax, {waves(1, {2, 3, 2})}, axis(1)), logs, 1e-5);
  expect_near(evaluate(ops::Softmax, {numbers({2}, {1000, 1000})}), {0.5, 0.5});
  expect_near(evaluate(ops::Softmax, {numbers({2, 2}, {-kInf, 0, -kInf, -kInf})}), {0, 1, kNan, kNan});
  expect_near(evaluate(ops::Softmax, {numbers({2}, {kNan, 0})}), {kNan, kNan});
}

TEST(Softmax, InferenceRuleAndImport) {
  const Type x = type_of(DType::f32, "B,S,8");
  expect_error(ErrorCode::invalid_model, "axis 3 is outside rank 3", [&] { infer(ops::Softmax, {x}, axis(3)); });
  EXPECT_EQ(rule_text(ops::Softmax, {x}), "a b c! -> a b c!");
  EXPECT_EQ(rule_text(ops::LogSoftmax, {x}, axis(1)), "a b! c -> a b! c");
  Imported old("Softmax", 11);
  old.input(numbers({1, 2, 2}, {0, 0, 0, 0}));
  expect_near(old.evaluate(), {0.25, 0.25, 0.25, 0.25});
  Imported recent("Softmax", 13);
  recent.input(numbers({1, 2, 2}, {0, 0, 0, 0}));
  expect_near(recent.evaluate(), {0.5, 0.5, 0.5, 0.5});
}

NamedAttributes reduction(const char* kind, std::vector<std::int64_t> axes, bool keepdims = false) {
  return {{"kind", std::string(kind)}, {"axes", std::move(axes)}, {"keepdims", keepdims}};
}

TEST(Reduce, Values) {
  const std::vector<std::pair<const char*, std::vector<double>>> cases = {
      {"sum", {0.575804, 1.879022, 0.06294}},         {"mean", {0.143951, 0.469755, 0.015735}},
      {"max", {0.991665, 0.850437, 0.989358}},        {"min", {-0.883455, 0.041581, -0.97753}},
      {"prod", {0.275624, 0.007441, 0.392308}},       {"l1", {3.090467, 1.879022, 3.241715}},
      {"l2", {1.616091, 1.13061, 1.657798}},          {"sum_square", {2.611748, 1.27828, 2.748293}},
      {"log_sum_exp", {1.811057, 1.904135, 1.713552}}};
  for (const auto& [kind, expected] : cases) {
    SCOPED_TRACE(kind);
    expect_near(evaluate(ops::Reduce, {waves(1, {2, 3, 2})}, reduction(kind, {0, 2})), expected);
  }
  expect_near(evaluate(ops::Reduce, {numbers({2}, {2, 6})}, reduction("log_sum", {0})), {std::log(8.0)});
  EXPECT_EQ(evaluate(ops::Reduce, {waves(1, {2, 3, 2})}, reduction("sum", {-2}, true)).shape(), (Shape{2, 1, 2}));
}

TEST(Reduce, Integers) {
  const std::int64_t big = (std::int64_t{1} << 60) + 1;
  EXPECT_EQ(evaluate(ops::Reduce, {ints({2}, {big, 1})}, reduction("sum", {0})).to_ints(), std::vector<std::int64_t>{big + 1});
  EXPECT_EQ(evaluate(ops::Reduce, {ints({2}, {big, 1})}, reduction("max", {0})).to_ints(), std::vector<std::int64_t>{big});
  EXPECT_EQ(evaluate(ops::Reduce, {ints({3}, {-2, -3, -3})}, reduction("mean", {0})).to_ints(), std::vector<std::int64_t>{-2});
  EXPECT_EQ(evaluate(ops::Reduce, {ints({2}, {-2, 3})}, reduction("l1", {0})).to_ints(), std::vector<std::int64_t>{5});
}

TEST(Reduce, NothingToReduce) {
  expect_near(evaluate(ops::Reduce, {numbers({1, 0}, {})}, reduction("sum", {1})), {0});
  expect_near(evaluate(ops::Reduce, {numbers({1, 0}, {})}, reduction("prod", {1})), {1});
  expect_near(evaluate(ops::Reduce, {numbers({1, 0}, {})}, reduction("max", {1})), {-kInf});
  expect_near(evaluate(ops::Reduce, {numbers({1, 0}, {})}, reduction("mean", {1})), {kNan});
  expect_error(ErrorCode::invalid_argument, "max of no integers", [] { evaluate(ops::Reduce, {ints({0}, {})}, reduction("max", {0})); });
}

TEST(Reduce, RuleSaysHowPartsCombine) {
  const Type x = type_of(DType::f32, "B,S,8");
  EXPECT_EQ(rule_text(ops::Reduce, {x}, reduction("sum", {1})), "a b+sum c -> a c");
  EXPECT_EQ(rule_text(ops::Reduce, {x}, reduction("max", {-1}, true)), "a b c+max -> a b 1");
  EXPECT_EQ(rule_text(ops::Reduce, {x}, reduction("prod", {0})), "a+prod b c -> b c");
  EXPECT_EQ(rule_text(ops::Reduce, {x}, reduction("mean", {1})), "a b! c -> a c");
  EXPECT_EQ(rule_text(ops::Reduce, {x}, reduction("l2", {1})), "a b! c -> a c");
}

TEST(Reduce, Fold) {
  EXPECT_EQ(folded(ops::Reduce, {"B,S,2"}, reduction("prod", {0})), Dim::parse("2*B*S").to_string());
  EXPECT_EQ(folded(ops::Reduce, {"B,S"}, reduction("sum", {0})), Dim::parse("B+S").to_string());
  EXPECT_EQ(folded(ops::Reduce, {"B"}, reduction("sum_square", {0})), "?");
}

TEST(ReduceImport, AxesFromAttributeOrInput) {
  Imported old("ReduceMean", 13);
  old.input(waves(1, {2, 3, 2})).with("axes", std::vector<std::int64_t>{0, -1}).with("keepdims", std::int64_t{0});
  expect_near(old.evaluate(), {0.143951, 0.469755, 0.015735});
  Imported recent("ReduceSum", 13);
  recent.input(waves(1, {2, 3, 2})).constant(ints({2}, {0, 2}));
  const Tensor y = recent.evaluate();
  EXPECT_EQ(y.shape(), (Shape{1, 3, 1}));
  expect_near(y, {0.575804, 1.879022, 0.06294});
  Imported all("ReduceMax", 18);
  expect_near(all.input(numbers({2, 2}, {1, 2, 3, 0})).with("keepdims", std::int64_t{0}).evaluate(), {3});
  Imported none("ReduceSum", 13);
  EXPECT_TRUE(none.input(numbers({2}, {1, 2})).with("noop_with_empty_axes", std::int64_t{1}).run_rule().empty());
  EXPECT_EQ(none.results[0], none.node.inputs[0]);
}

TEST(ArgReduce, ValuesTiesAndNan) {
  const Tensor x = numbers({2, 3}, {1, 5, 5, kNan, 0, 9});
  EXPECT_EQ(evaluate(ops::ArgMax, {x}, axis(1)).to_ints(), (std::vector<std::int64_t>{1, 0}));
  EXPECT_EQ(evaluate(ops::ArgMax, {x}, {{"axis", std::int64_t{1}}, {"last", true}}).to_ints(), (std::vector<std::int64_t>{2, 0}));
  EXPECT_EQ(evaluate(ops::ArgMin, {numbers({2, 2}, {4, 2, 3, 8})}, axis(0)).to_ints(), (std::vector<std::int64_t>{1, 0}));
  EXPECT_EQ(infer(ops::ArgMax, {type_of(DType::f32, "B,S")}, {{"axis", std::int64_t{-1}}, {"keepdims", false}}),
            (std::vector<Type>{type_of(DType::i64, "B")}));
  EXPECT_EQ(rule_text(ops::ArgMax, {type_of(DType::f32, "B,S")}, axis(1)), "a b! -> a 1");
  expect_error(ErrorCode::invalid_model, "no element", [] { infer(ops::ArgMin, {type_of(DType::f32, "0")}); });
}

TEST(TopK, ValuesTiesAndNan) {
  const Tensor x = numbers({2, 4}, {1, 5, 5, 2, kNan, 0, 9, -0.0});
  const auto top = [&](std::int64_t along, std::int64_t k, bool largest) {
    return evaluate_all(ops::TopK, {x}, {{"axis", along}, {"k", Dim(k)}, {"largest", largest}});
  };
  EXPECT_EQ(top(1, 3, true)[1].to_ints(), (std::vector<std::int64_t>{1, 2, 3, 0, 2, 1}));
  EXPECT_EQ(top(-1, 4, false)[1].to_ints(), (std::vector<std::int64_t>{0, 3, 1, 2, 1, 3, 2, 0}));
  expect_near(top(1, 2, true)[0], {5, 5, kNan, 9});
  expect_near(top(0, 1, false)[0], {1, 0, 5, -0.0});
  const Tensor wide = ints({3}, {1, -1, 0}, DType::u64);  // -1 is the largest of them
  EXPECT_EQ(evaluate_all(ops::TopK, {wide}, {{"k", Dim(3)}})[1].to_ints(), (std::vector<std::int64_t>{1, 0, 2}));
}

TEST(TopK, TypesAndRule) {
  const NamedAttributes first_k = {{"axis", std::int64_t{1}}, {"k", Dim::symbol("K")}};
  EXPECT_EQ(infer(ops::TopK, {type_of(DType::bf16, "B,S,4")}, first_k),
            (std::vector<Type>{type_of(DType::bf16, "B,K,4"), type_of(DType::i64, "B,K,4")}));
  EXPECT_EQ(rule_text(ops::TopK, {type_of(DType::f32, "B,S,4")}, first_k), "a b! d -> a c! d, a c! d");
  expect_error(ErrorCode::invalid_model, "k is 5", [] { infer(ops::TopK, {type_of(DType::f32, "B,4")}, {{"k", Dim(5)}}); });
  expect_error(ErrorCode::invalid_model, "k is -1", [] { infer(ops::TopK, {type_of(DType::f32, "B,4")}, {{"k", Dim(-1)}}); });
  expect_error(ErrorCode::invalid_model, "a number type", [] { infer(ops::TopK, {type_of(DType::boolean, "B,4")}); });
  const OpCall call = call_of(ops::TopK, {type_of(DType::f32, "B,S")}, first_k).bound({{"B", 1}, {"S", 2}, {"K", 3}});
  expect_error(ErrorCode::invalid_argument, "k is 3, expected 0 to 2", [&] {
    ops::TopK.evaluate(call, std::vector<Tensor>{numbers({1, 2}, {1, 2})});
  });
}

TEST(TopKImport, KOfEveryOpset) {
  const Tensor x = numbers({2, 3}, {1, 2, 3, 6, 5, 4});
  Imported attribute("TopK", 9);
  attribute.node.outputs = {"values", "indices"};
  expect_near(attribute.input(x).with("k", std::int64_t{2}).evaluate(), {3, 2, 6, 5});
  Imported tenth("TopK", 10);
  tenth.node.outputs = {"values", "indices"};
  expect_near(tenth.input(x).constant(ints({1}, {1})).with("axis", std::int64_t{0}).evaluate(), {6, 5, 4});
  Imported smallest("TopK", 24);
  smallest.node.outputs = {"values", "indices"};
  smallest.input(x).constant(ints({1}, {2})).with("largest", std::int64_t{0}).with("sorted", std::int64_t{0});
  EXPECT_EQ(smallest.evaluate(1).to_ints(), (std::vector<std::int64_t>{0, 1, 2, 1}));
  Imported missing("TopK", 9);
  missing.input(x);
  expect_error(ErrorCode::invalid_model, "attribute k is missing", [&] { missing.run_rule(); });
  Imported two("TopK", 11);
  two.input(x).constant(ints({2}, {1, 2}));
  expect_error(ErrorCode::invalid_model, "k holds 2 numbers", [&] { two.run_rule(); });
  Imported late("TopK", 11);
  late.input(x).input(Type{DType::i64, {1}});
  expect_error(ErrorCode::unsupported, "depends on data", [&] { late.run_rule(); });
}

TEST(TopKImport, KFromAShape) {
  Imported program("TopK", 17);
  program.node.outputs = {"values", "indices"};
  program.input(type_of(DType::f32, "B,S"));
  program.node.inputs.push_back(program.builder.dim_value({min(Dim::symbol("S"), Dim(3))}, {1}));
  program.run_rule();
  EXPECT_EQ(program.results.at(0)->type.to_string(), (Type{DType::f32, {Dim::symbol("B"), min(Dim::symbol("S"), Dim(3))}}.to_string()));
}

TEST(CumSum, Values) {
  const Tensor x = numbers({2, 3}, {1, 2, 3, 4, 5, 6});
  const auto sums = [&](bool exclusive, bool reverse) {
    return evaluate(ops::CumSum, {x}, {{"axis", std::int64_t{1}}, {"exclusive", exclusive}, {"reverse", reverse}});
  };
  expect_near(sums(false, false), {1, 3, 6, 4, 9, 15});
  expect_near(sums(true, false), {0, 1, 3, 0, 4, 9});
  expect_near(sums(false, true), {6, 5, 3, 15, 11, 6});
  expect_near(sums(true, true), {5, 3, 0, 11, 6, 0});
  EXPECT_EQ(rule_text(ops::CumSum, {type_of(DType::i64, "B,S")}, axis(1)), "a b! -> a b!");
  Imported program("CumSum", 14);
  program.input(x).constant(ints({}, {1})).with("exclusive", std::int64_t{1}).with("reverse", std::int64_t{1});
  expect_near(program.evaluate(), {5, 3, 0, 11, 6, 0});
}

}  // namespace
}  // namespace tandem::testing
