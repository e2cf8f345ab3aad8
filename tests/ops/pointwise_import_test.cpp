#include <cmath>
#include <limits>

#include "ops/op_test.h"

namespace tandem::testing {
namespace {

TEST(PointwiseImport, SameNamesAndAttributes) {
  for (const char* name : {"Abs", "Ceil", "Cos", "Erf", "Exp", "Floor", "HardSwish", "IsNaN", "Log", "Neg", "Reciprocal", "Relu", "Round",
                           "Sigmoid", "Sign", "Sin", "Softplus", "Sqrt", "Tanh"}) {
    Imported program(name, 23);
    EXPECT_EQ(program.input(type_of(DType::f32, "B,4")).run_rule(), std::vector<std::string>{name});
  }
  Imported elu("Elu", 13);
  expect_near(elu.input(numbers({2}, {-2, 1})).with("alpha", 2.0).evaluate(), {-1.729329, 1});
  Imported leaky("LeakyRelu", 16);
  expect_near(leaky.input(numbers({2}, {-2, 1})).evaluate(), {-0.02, 1});
  Imported hard("HardSigmoid", 6);
  expect_near(hard.input(numbers({2}, {1, 9})).with("beta", 0.25).evaluate(), {0.45, 1});
  Imported infinite("IsInf", 20);
  EXPECT_EQ(infinite.input(numbers({2}, {-std::numeric_limits<double>::infinity(), 1}))
                .with("detect_negative", std::int64_t{0})
                .evaluate()
                .to_ints(),
            (std::vector<std::int64_t>{0, 0}));
  Imported gelu("Gelu", 20);
  expect_near(gelu.input(numbers({1}, {1})).with("approximate", std::string("tanh")).evaluate(), {0.841192});
  Imported swish("Swish", 24);
  expect_near(swish.input(numbers({1}, {1})).with("alpha", 2.0).evaluate(), {0.880797});
  Imported wrong("Gelu", 20);
  expect_error(ErrorCode::invalid_model, "not one of",
               [&] { wrong.input(numbers({1}, {1})).with("approximate", std::string("fast")).run_rule(); });
}

TEST(PointwiseImport, ChainsAndBounds) {
  Imported largest("Max", 13);
  expect_near(largest.input(numbers({2}, {1, 5})).input(numbers({2}, {3, 2})).input(numbers({1}, {2})).evaluate(), {3, 5});
  Imported alone("Min", 13);
  EXPECT_TRUE(alone.input(numbers({2}, {1, 5})).run_rule().empty());
  Imported sum("Sum", 13);
  expect_near(sum.input(numbers({2}, {1, 5})).input(numbers({2}, {3, 2})).input(numbers({2}, {1, 1})).evaluate(), {5, 8});
  Imported clip("Clip", 13);
  expect_near(clip.input(numbers({3}, {-9, 1, 9})).absent().constant(numbers({}, {6})).evaluate(), {-9, 1, 6});
  Imported old("Clip", 6);
  expect_near(old.input(numbers({3}, {-9, 1, 9})).with("min", 0.0).with("max", 6.0).evaluate(), {0, 1, 6});
}

TEST(PointwiseImport, MixedAndDerivedTypes) {
  Imported pow("Pow", 15);
  expect_near(pow.input(numbers({2}, {2, 3})).constant(ints({}, {2})).evaluate(), {4, 9});
  Imported cast("Cast", 13);
  EXPECT_EQ(cast.input(numbers({1}, {2.7})).with("to", std::int64_t{7}).evaluate().dtype(), DType::i64);
  Imported narrow("Cast", 19), cut("Cast", 19);
  expect_near(narrow.input(numbers({3}, {1e6, -1e6, 3})).with("to", std::int64_t{17}).evaluate(), {448, -448, 3});
  EXPECT_TRUE(std::isnan(cut.input(numbers({1}, {1e6})).with("to", std::int64_t{17}).with("saturate", std::int64_t{0}).evaluate().at(0)));
  Imported like("CastLike", 15);
  EXPECT_EQ(like.input(numbers({1}, {2.7})).input(ints({1}, {0}, DType::i32)).evaluate().dtype(), DType::i32);
  Imported string("Cast", 13);
  expect_error(ErrorCode::unsupported, "element type 8", [&] { string.input(numbers({1}, {2.7})).with("to", std::int64_t{8}).run_rule(); });
  Imported nothing("Cast", 13);
  EXPECT_TRUE(nothing.input(type_of(DType::f32, "B")).with("to", std::int64_t{1}).run_rule().empty());
}

TEST(PointwiseImport, BroadcastingRecordsAssumptions) {
  Imported add("Add", 14);
  add.input(type_of(DType::f32, "B,S")).input(type_of(DType::f32, "T")).run_rule();
  ASSERT_EQ(add.graph.constraints.size(), 1u);
  EXPECT_EQ(add.graph.constraints[0].left, Dim::symbol("S"));
  EXPECT_EQ(add.graph.constraints[0].right, Dim::symbol("T"));
  Imported where("Where", 16);
  where.input(type_of(DType::boolean, "A")).input(type_of(DType::f32, "B")).input(type_of(DType::f32, "1")).run_rule();
  EXPECT_EQ(where.graph.constraints.size(), 1u);
  Imported wrong("Mul", 14);
  expect_error(ErrorCode::invalid_model, "do not broadcast",
               [&] { wrong.input(type_of(DType::f32, "2")).input(type_of(DType::f32, "3")).run_rule(); });
}

TEST(PointwiseImport, ShapeArithmeticIsFollowed) {
  Module module(all_ops());
  Graph& graph = module.add_graph("main");
  GraphBuilder builder(graph);
  Value* extents = builder.dim_value({Dim::symbol("B"), Dim::symbol("S")}, {2});
  Value* product = builder.add("Mul", {extents, builder.constant(ints({1}, {4}))});
  Value* chosen = builder.add("Where", {builder.add("Equal", {extents, builder.constant(ints({}, {-1}))}), extents, product});
  EXPECT_EQ(builder.dims_of(chosen), (DimContent{Dim::parse("4*B"), Dim::parse("4*S")}));
  EXPECT_FALSE(builder.dims_of(builder.add("Equal", {extents, builder.constant(ints({}, {1}))})));
}

TEST(OpList, EveryOpIsComplete) {
  for (const OpDef* op : all_ops().all()) {
    EXPECT_FALSE(op->doc.empty()) << op->name;
    EXPECT_NE(op->infer, nullptr) << op->name;
    EXPECT_EQ(all_ops().find(op->name), op) << op->name << " is listed twice";
    EXPECT_EQ(op->evaluate == nullptr, op->collective || op->name == "Custom") << op->name;  // which only its owner can evaluate
    for (const Field& field : op->fields)
      EXPECT_EQ(field.initial.index(), static_cast<std::size_t>(field.kind)) << op->name << " " << field.name;
  }
}

}  // namespace
}  // namespace tandem::testing
