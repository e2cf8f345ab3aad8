// What the importer makes of inputs, names, order, branches and functions.
#include <gtest/gtest.h>

#include <algorithm>

#include "import/model_builder.h"
#include "passes/evaluate.h"

namespace tandem::testing {
namespace {

using Proto = onnx::TensorProto;
using Attribute = onnx::AttributeProto;

std::string input_types(const Module& module) {
  std::string text;
  for (const auto& input : module.main().inputs()) text += (text.empty() ? "" : " ") + input->type.to_string();
  return text;
}

std::string output_type(const Module& module, std::size_t i = 0) { return module.main().outputs().at(i).value->type.to_string(); }

std::vector<std::string> ops(const Module& module) {
  std::vector<std::string> names;
  for (const auto& node : module.main().nodes()) names.emplace_back(node->op().name);
  return names;
}

TEST(Symbols, UnifyByNameAndUnderstandExpressions) {
  OnnxModel model;
  model.input("a", {"batch", "past + new"}).input("b", {"batch", "new", "past"}).output("a");
  EXPECT_EQ(input_types(*model.import()), "f32[batch,new+past] f32[batch,new,past]");
}

TEST(Symbols, OddMissingAndHostileNamesBecomeSymbols) {
  OnnxModel model;
  model.input("x/y:0", {"", "-1", "2 * n", "@tp", "3rd dim!", "7"}).input("z", {"3rd dim!", "_rd dim_"}).output("z");
  EXPECT_EQ(input_types(*model.import()), "f32[x_y_0_dim_0,x_y_0_dim_1,_2___n,_tp,_3rd_dim_,7] f32[_3rd_dim_,_rd_dim_]");
}

TEST(Symbols, OfOutputsAreInferred) {
  OnnxModel model;
  model.input("x", {"n", "4"}).output("y");
  auto* shape = model.graph().mutable_output(0)->mutable_type()->mutable_tensor_type()->mutable_shape();
  shape->add_dim()->set_dim_param("n");
  shape->add_dim()->set_dim_param("n");
  model.node("Transpose", {"x"}, {"y"});
  EXPECT_EQ(output_type(*model.import()), "f32[4,n]");
}

TEST(Symbols, TakeRangesFromOptionsAndDefaults) {
  OnnxModel model;
  model.input("x", {"batch", "sequence", "4"}).input("past", {"batch", "past_length"}).output("x");
  const auto module = model.import({.shapes = {{"x", {{1, 2, 3}, {4, 5, 6}, {4, 4, 4}}}}});
  const Profile& profile = module->main().profiles.at(0);
  EXPECT_EQ(profile.at("batch"), (SymbolRange{1, 2, 3}));
  EXPECT_EQ(profile.at("sequence"), (SymbolRange{4, 5, 6}));
  EXPECT_EQ(profile.at("past_length"), (SymbolRange{0, 8, 65536}));
}

TEST(Symbols, DefaultsStayInsideATable) {
  OnnxModel model;
  model.input("ids", {"batch", "sequence"}, Proto::INT64).output("y");
  model.floats("table", {6, 2}, std::vector<float>(12, 1));
  model.integers("zero", {1}, {0});
  model.integers("one", {}, {1});
  model.node("Shape", {"ids"}, {"shape"});
  model.node("Gather", {"shape", "one"}, {"length"});
  model.node("Unsqueeze", {"length", "zero"}, {"end"});
  model.node("Slice", {"table", "zero", "end", "zero"}, {"y"});
  const auto module = model.import();
  EXPECT_EQ(output_type(*module), "f32[sequence,2]");
  EXPECT_EQ(module->main().profiles[0].at("sequence"), (SymbolRange{1, 6, 6}));
  EXPECT_EQ(module->main().profiles[0].at("batch"), (SymbolRange{1, 8, 65536}));
  EXPECT_EQ(ops(*module), std::vector<std::string>{"Slice"});
}

TEST(Symbols, RangesThatDoNotFitAreRefused) {
  OnnxModel model;
  model.input("x", {"batch", "4"}).output("x");
  const auto refused = [&](std::vector<SymbolRange> ranges, const std::string& part) {
    expect_refused(model, ErrorCode::invalid_argument, {"'x'", part}, {.shapes = {{"x", std::move(ranges)}}});
  };
  refused({{1, 2, 3}}, "2 dimensions");
  refused({{1, 2, 3}, {1, 4, 4}}, "is 4");
  refused({{3, 2, 1}, {4, 4, 4}}, "min:opt:max");
  refused({{-1, 2, 3}, {4, 4, 4}}, "min:opt:max");
  expect_refused(model, ErrorCode::invalid_argument, {"'q'", "no input"}, {.shapes = {{"q", {{1, 1, 1}}}}});
}

TEST(Order, NodesMayComeInAnyOrderAndDeadOnesAreSkipped) {
  OnnxModel model;
  model.input("x", {"n"}).output("y");
  model.node("Neg", {"b"}, {"y"});
  model.node("Mystery", {}, {"dead"});
  model.node("Exp", {"a"}, {"b"});
  model.node("MatMul", {"gone", "x"}, {});
  model.node("Abs", {"x"}, {"a"});
  EXPECT_EQ(ops(*model.import()), (std::vector<std::string>{"Abs", "Exp", "Neg"}));
}

TEST(Order, LongChainsBackToFront) {
  OnnxModel model;
  model.input("x0", {"n"}).output("x20000");
  for (int i = 20000; i > 0; --i) model.node("Abs", {"x" + std::to_string(i - 1)}, {"x" + std::to_string(i)});
  EXPECT_EQ(model.import()->main().nodes().size(), 20000u);
}

TEST(Order, CyclesAndNamesWrittenTwiceAreRefused) {
  OnnxModel cycle;
  cycle.input("x", {"n"}).output("y");
  cycle.node("Add", {"x", "b"}, {"a"}, "first");
  cycle.node("Abs", {"a"}, {"b"}, "second");
  cycle.node("Neg", {"a"}, {"y"});
  expect_refused(cycle, ErrorCode::invalid_model, {"depends on its own output"});
  OnnxModel self;
  self.output("y").node("Abs", {"y"}, {"y"}, "loop");
  expect_refused(self, ErrorCode::invalid_model, {"Abs \"loop\"", "depends on its own output"});
  OnnxModel twice;
  twice.input("x", {"n"}).output("y");
  twice.node("Abs", {"x"}, {"y"});
  twice.node("Neg", {"x"}, {"y"}, "again");
  expect_refused(twice, ErrorCode::invalid_model, {"Neg \"again\"", "'y' is written twice"});
}

TEST(Weights, AreSharedKeepTheirNamesAndSkipWhatNobodyUses) {
  OnnxModel model;
  model.input("x", {"n", "2"}).input("w", {"2", "2"}).output("y");
  model.floats("w", {2, 2}, {1, 2, 3, 4});
  model.floats("unused", {3}, {1, 2, 3});
  model.node("MatMul", {"x", "w"}, {"a"});
  model.node("MatMul", {"a", "w"}, {"y"});
  const auto module = model.import();
  EXPECT_EQ(input_types(*module), "f32[n,2]");
  ASSERT_EQ(module->weights().size(), 1u);
  EXPECT_EQ(module->weights()[0]->name, "w");
  EXPECT_FALSE(module->weights()[0]->frozen);
  EXPECT_EQ(module->source("w").to_doubles(), (std::vector<double>{1, 2, 3, 4}));
  EXPECT_FALSE(module->has_source("unused"));
}

TEST(Weights, ConstantNodesThatHoldWeightsAreWeights) {
  OnnxModel model;
  model.input("x", {"n"}).output("y");
  Proto* value = add_attribute(model.node("Constant", {}, {"bias"}), "value", Attribute::TENSOR).mutable_t();
  value->set_data_type(Proto::FLOAT);
  value->add_dims(2);
  value->set_raw_data(std::string("\0\0\x80\x3f\0\0\0\x40", 8));
  model.node("Add", {"x", "bias"}, {"y"});
  const auto module = model.import();
  ASSERT_TRUE(module->has_source("bias"));
  EXPECT_EQ(module->source("bias").to_doubles(), (std::vector<double>{1, 2}));
}

// if (4-dimensional) y = -x else y = an op that does not exist
OnnxModel branching(const std::string& predicate) {
  OnnxModel model;
  model.input("x", {"n", "4"}).input("flag", {}, Proto::BOOL).output("y");
  model.integers("two", {}, {2});
  model.node("Shape", {"x"}, {"shape"});
  model.node("Size", {"shape"}, {"rank"});
  model.node("Equal", {"rank", "two"}, {"is_matrix"});
  onnx::NodeProto& node = model.node("If", {predicate}, {"y"}, "choice");
  onnx::GraphProto* yes = add_attribute(node, "then_branch", Attribute::GRAPH).mutable_g();
  add_node(yes->mutable_node(), "Neg", {"late"}, {"inner"});
  yes->add_output()->set_name("inner");
  onnx::GraphProto* no = add_attribute(node, "else_branch", Attribute::GRAPH).mutable_g();
  add_node(no->mutable_node(), "Mystery", {"x"}, {"inner"});
  no->add_output()->set_name("inner");
  model.node("Abs", {"x"}, {"late"});  // captured by the branch, listed after it
  return model;
}

TEST(If, TakesTheKnownBranchOnly) { EXPECT_EQ(ops(*branching("is_matrix").import()), (std::vector<std::string>{"Abs", "Neg"})); }

TEST(If, ThatDependsOnDataIsRefused) {
  expect_refused(branching("flag"), ErrorCode::unsupported, {"If \"choice\"", "'flag' depends on data"});
  OnnxModel loop;
  loop.input("x", {"n"}).output("y").node("Loop", {"", "", "x"}, {"y"}, "steps");
  expect_refused(loop, ErrorCode::unsupported, {"Loop \"steps\""});
}

onnx::FunctionProto& scaled(OnnxModel& model) {  // y = LeakyRelu(x, alpha = slope) + x
  onnx::FunctionProto* f = model.proto.add_functions();
  f->set_domain("custom");
  f->set_name("Scaled");
  f->add_input("a");
  f->add_output("c");
  f->add_attribute("slope");
  f->add_opset_import()->set_version(17);
  onnx::NodeProto& leaky = add_node(f->mutable_node(), "LeakyRelu", {"a"}, {"b"}, "leaky");
  add_attribute(leaky, "alpha", Attribute::FLOAT).set_ref_attr_name("slope");
  add_node(f->mutable_node(), "Add", {"a", "b"}, {"c"}, "sum");
  return *f;
}

TEST(Functions, AreInlinedWithTheirAttributes) {
  OnnxModel model;
  model.input("x", {"2"}).output("y");
  scaled(model);
  onnx::NodeProto& call = model.node("Scaled", {"x"}, {"y"}, "call");
  call.set_domain("custom");
  add_attribute(call, "slope", Attribute::FLOAT).set_f(0.5f);
  const auto module = model.import();
  const auto outputs = evaluate(module->main(), {{"x", Tensor::of(DType::f32, {2}, std::vector<double>{-2, 3})}}, {});
  EXPECT_EQ(outputs.at("y").to_doubles(), (std::vector<double>{-3, 6}));
  EXPECT_EQ(module->main().nodes().front()->name(), "call/leaky");
}

TEST(Functions, ThatCallThemselvesAreRefused) {
  OnnxModel model;
  model.input("x", {"2"}).output("y");
  onnx::FunctionProto& f = scaled(model);
  f.mutable_node(0)->set_op_type("Scaled");
  f.mutable_node(0)->set_domain("custom");
  model.node("Scaled", {"x"}, {"y"}, "call").set_domain("custom");
  expect_refused(model, ErrorCode::unsupported, {"nested more than"});
}

TEST(Outputs, MayBeInputsOrWeights) {
  OnnxModel model;
  model.input("x", {"n"}).output("x").output("w");
  model.floats("w", {2}, {1, 2});
  const auto module = model.import();
  EXPECT_TRUE(module->main().outputs()[0].value->is_input());
  EXPECT_EQ(output_type(*module, 1), "f32[2]");
}

}  // namespace
}  // namespace tandem::testing
