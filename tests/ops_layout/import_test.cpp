// ONNX rules of the layout, gather and shape families: symbolic extents, the many spellings, and refusals.
#include "ops/op_test.h"

namespace tandem::testing {
namespace {

using Ints = std::vector<std::int64_t>;
constexpr std::int64_t kEnd = INT64_MAX;

Tensor list(Ints values) { return ints({static_cast<std::int64_t>(values.size())}, values); }

std::string type_after(Imported& model) {
  model.run_rule();
  return model.results.at(0)->type.to_string();
}

// The type of Slice(x, starts, ends, axes, steps) for x of these extents.
std::string sliced(const std::string& dims, Ints starts, Ints ends, Ints axes, Ints steps) {
  Imported model("Slice", 17);
  model.input(type_of(DType::f32, dims)).constant(list(starts)).constant(list(ends)).constant(list(axes)).constant(list(steps));
  return type_after(model);
}

TEST(ImportSlice, NormalisesBounds) {
  EXPECT_EQ(sliced("B,S", {0}, {kEnd}, {1}, {1}), "f32[B,S]");
  EXPECT_EQ(sliced("B,S+1", {1}, {kEnd}, {-1}, {1}), "f32[B,S]");
  EXPECT_EQ(sliced("B,S+1", {-1}, {kEnd}, {1}, {1}), "f32[B,1]");
  EXPECT_EQ(sliced("B,S+2", {0}, {-1}, {1}, {1}), "f32[B,S+1]");
  EXPECT_EQ(sliced("B,16", {2}, {100}, {1}, {3}), "f32[B,5]");
  EXPECT_EQ(sliced("B,16", {-1}, {INT64_MIN}, {1}, {-1}), "f32[B,16]");
  EXPECT_EQ(sliced("B,16", {12}, {3}, {1}, {1}), "f32[B,0]");
  EXPECT_EQ(sliced("4,6", {1, 0}, {3, 6}, {0, 1}, {1, 2}), "f32[2,3]");
  EXPECT_EQ(sliced("B,2*S", {0}, {kEnd}, {1}, {2}), "f32[B,S]");
}

TEST(ImportSlice, OfNothingIsTheOperand) {
  Imported model("Slice", 17);
  model.input(type_of(DType::f32, "B,S")).constant(list({0})).constant(list({kEnd})).constant(list({1}));
  model.run_rule();
  EXPECT_EQ(model.results[0], model.node.inputs[0]);
}

TEST(ImportSlice, OfATableUpToASymbolBecomesAConstraint) {
  Imported model("Slice", 17);
  model.input(type_of(DType::f32, "512,8"));
  model.constant(list({0}));
  model.node.inputs.push_back(model.builder.dim_value({Dim::symbol("S")}, {1}));
  model.constant(list({0}));
  EXPECT_EQ(type_after(model), "f32[S,8]");
  ASSERT_EQ(model.graph.constraints.size(), 1u);
  EXPECT_EQ(model.graph.constraints[0].left, min(Dim(512), Dim::symbol("S")));
  EXPECT_EQ(model.graph.constraints[0].right, Dim::symbol("S"));
}

TEST(ImportSlice, BeforeOpset10TakesAttributes) {
  Imported model("Slice", 9);
  model.input(waves(0, {4, 3})).with("starts", Ints{1}).with("ends", Ints{3}).with("axes", Ints{0});
  EXPECT_EQ(model.evaluate().shape(), (Shape{2, 3}));
}

TEST(ImportSlice, WithBoundsFromDataIsRefused) {
  expect_error(ErrorCode::unsupported, "depends on data", [] {
    Imported model("Slice", 17);
    model.input(type_of(DType::f32, "B,S")).input(type_of(DType::i64, "1")).constant(list({3}));
    model.run_rule();
  });
}

std::string reshaped(const std::string& dims, std::vector<Dim> shape, std::int64_t allow_zero = 0) {
  Imported model("Reshape", 17);
  model.input(type_of(DType::f32, dims));
  const auto rank = static_cast<std::int64_t>(shape.size());
  model.node.inputs.push_back(model.builder.dim_value(shape, {rank}));
  model.with("allowzero", allow_zero);
  return type_after(model);
}

TEST(ImportReshape, ResolvesZeroAndMinusOne) {
  const Dim b = Dim::symbol("B"), s = Dim::symbol("S");
  EXPECT_EQ(reshaped("B,S,384", {0, 0, 12, -1}), "f32[B,S,12,32]");
  EXPECT_EQ(reshaped("B,S,12,32", {b, s, -1}), "f32[B,S,384]");
  EXPECT_EQ(reshaped("B,S,384", {-1, 384}), "f32[B*S,384]");
  EXPECT_EQ(reshaped("B*S,384", {b, -1, 384}), "f32[B,S,384]");
  EXPECT_EQ(reshaped("0,4", {0, 7}, 1), "f32[0,7]");
  expect_error(ErrorCode::invalid_model, "more than one -1", [] { reshaped("B,S", {-1, -1}); });
  expect_error(ErrorCode::invalid_model, "can never be equal", [] { reshaped("3,4", {5, 5}); });
  expect_error(ErrorCode::invalid_model, "does not have", [] { reshaped("12", {3, 0}); });
}

TEST(ImportReshape, InexactDivisionIsAConstraint) {
  Imported model("Reshape", 17);
  model.input(type_of(DType::f32, "S")).constant(list({-1, 4}));
  EXPECT_EQ(type_after(model), "f32[floordiv(S,4),4]");
  ASSERT_EQ(model.graph.constraints.size(), 1u);
}

TEST(ImportReshape, FlattenSqueezeUnsqueeze) {
  EXPECT_EQ(type_after(Imported("Flatten", 17).input(type_of(DType::f32, "B,3,S")).with("axis", std::int64_t{-1})), "f32[3*B,S]");
  EXPECT_EQ(type_after(Imported("Squeeze", 17).input(type_of(DType::f32, "1,B,1"))), "f32[B]");
  EXPECT_EQ(type_after(Imported("Squeeze", 17).input(type_of(DType::f32, "1,B,1")).constant(list({-1}))), "f32[1,B]");
  EXPECT_EQ(type_after(Imported("Squeeze", 11).input(type_of(DType::f32, "1,B,1")).with("axes", Ints{0})), "f32[B,1]");
  EXPECT_EQ(type_after(Imported("Unsqueeze", 17).input(type_of(DType::f32, "B,S")).constant(list({-1, 0}))), "f32[1,B,S,1]");
  expect_error(ErrorCode::invalid_model, "twice", [] {
    Imported("Unsqueeze", 17).input(type_of(DType::f32, "B")).constant(list({0, -3})).run_rule();
  });
}

TEST(ImportExpand, BroadcastsBothWays) {
  Imported model("Expand", 17);
  model.input(type_of(DType::f32, "B,1,4"));
  model.node.inputs.push_back(model.builder.dim_value({2, 1, Dim::symbol("S"), 1}, {4}));
  EXPECT_EQ(type_after(model), "f32[2,B,S,4]");
}

TEST(ImportTile, RepeatsWholeBlocks) {
  const Tensor x = waves(0, {2, 3});
  const Tensor y = Imported("Tile", 17).input(x).constant(list({2, 3})).evaluate();
  std::vector<double> expected;
  for (std::int64_t i = 0; i < 4; ++i)
    for (std::int64_t j = 0; j < 9; ++j) expected.push_back(x.at(i % 2 * 3 + j % 3));
  ASSERT_EQ(y.shape(), (Shape{4, 9}));
  expect_near(y, expected, 0);
  EXPECT_EQ(type_after(Imported("Tile", 17).input(type_of(DType::f32, "1,S")).constant(list({4, 2}))), "f32[4,2*S]");
}

TEST(ImportSplit, EqualUnequalAndUneven) {
  const Tensor x = waves(0, {7, 2});
  const auto lengths = [&](Imported& model, std::size_t outputs) {
    model.node.outputs.resize(outputs, "y");
    model.run_rule();
    std::string text;
    for (const Value* v : model.results) text += v->type.dims[0].to_string() + " ";
    return text;
  };
  EXPECT_EQ(lengths(Imported("Split", 18).input(x).with("num_outputs", std::int64_t{3}), 3), "3 3 1 ");
  EXPECT_EQ(lengths(Imported("Split", 13).input(x).constant(list({2, 5})), 2), "2 5 ");
  EXPECT_EQ(lengths(Imported("Split", 11).input(type_of(DType::f32, "3*H")), 3), "H H H ");
  expect_error(ErrorCode::invalid_model, "can never be equal", [&] { lengths(Imported("Split", 13).input(x).constant(list({2, 4})), 2); });
}

TEST(ImportPad, WithAxesAndNegativePads) {
  const Tensor x = waves(0, {3, 4});
  Imported model("Pad", 18);
  model.input(x).constant(list({-1, 2})).constant(numbers({}, {5})).constant(list({-1}));
  const Tensor y = model.evaluate();
  ASSERT_EQ(y.shape(), (Shape{3, 5}));
  EXPECT_EQ(y.at(0), x.at(1));
  EXPECT_EQ(y.at(3), 5);
  expect_error(ErrorCode::unsupported, "'wrap'", [&] {
    Imported("Pad", 19).input(x).constant(list({0, 1, 0, 1})).with("mode", std::string("wrap")).run_rule();
  });
}

TEST(ImportRange, OfSymbolsIsAnIota) {
  Imported model("Range", 17);
  model.constant(ints({}, {0}));
  model.node.inputs.push_back(model.builder.dim_value({Dim::symbol("S")}, {}));
  model.constant(ints({}, {1}));
  EXPECT_EQ(model.run_rule(), (std::vector<std::string>{"DimValue", "Iota"}));
  EXPECT_EQ(model.results[0]->type.to_string(), "i64[S]");
  expect_near(Imported("Range", 17).constant(ints({}, {9})).constant(ints({}, {1})).constant(ints({}, {-3})).evaluate(), {9, 6, 3}, 0);
  expect_near(Imported("Range", 17).constant(numbers({}, {0})).constant(numbers({}, {1})).constant(numbers({}, {0.25})).evaluate(),
              {0, 0.25, 0.5, 0.75}, 0);
  EXPECT_EQ(type_after(Imported("Range", 17).constant(ints({}, {5})).constant(ints({}, {1})).constant(ints({}, {1}))), "i64[0]");
}

TEST(ImportShape, IsKnownContents) {
  Imported model("Shape", 17);
  model.input(type_of(DType::f32, "B,S,8")).with("start", std::int64_t{-2});
  model.run_rule();
  const auto contents = model.builder.dims_of(model.results[0]);
  ASSERT_TRUE(contents.has_value());
  EXPECT_EQ(*contents, (DimContent{Dim::symbol("S"), 8}));
  Imported size("Size", 17);
  size.input(type_of(DType::f32, "B,S,8")).run_rule();
  EXPECT_EQ(size.builder.dims_of(size.results[0])->at(0), Dim(8) * Dim::symbol("B") * Dim::symbol("S"));
}

TEST(ImportConstant, AllForms) {
  expect_near(Imported("Constant", 17).with("value", numbers({2}, {1, 2})).evaluate(), {1, 2}, 0);
  expect_near(Imported("Constant", 17).with("value_float", 2.5).evaluate(), {2.5}, 0);
  expect_near(Imported("Constant", 17).with("value_int", std::int64_t{7}).evaluate(), {7}, 0);
  expect_near(Imported("Constant", 17).with("value_ints", Ints{7, 8}).evaluate(), {7, 8}, 0);
  expect_near(Imported("Constant", 17).with("value_floats", std::vector<double>{0.5, 8}).evaluate(), {0.5, 8}, 0);
  expect_error(ErrorCode::unsupported, "value_string", [] { Imported("Constant", 17).with("value_string", std::string("x")).run_rule(); });
}

TEST(ImportConstantOfShape, IsAnExpandedScalar) {
  Imported model("ConstantOfShape", 17);
  model.node.inputs.push_back(model.builder.dim_value({Dim::symbol("B"), 2}, {2}));
  model.with("value", ints({1}, {3}));
  EXPECT_EQ(type_after(model), "i64[B,2]");
  EXPECT_NE(model.find("Expand"), nullptr);
}

TEST(ImportDropout, IsItsInput) {
  Imported model("Dropout", 13);
  model.input(type_of(DType::f32, "B"));
  model.run_rule();
  EXPECT_EQ(model.results[0], model.node.inputs[0]);
}

}  // namespace
}  // namespace tandem::testing
