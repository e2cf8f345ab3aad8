// Ops of the user's own: from an ONNX node to a run, over ranks, in an engine file, and what is said where one is missing.
#include "tandem/custom_op.h"

#include <gtest/gtest.h>

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "import/model_builder.h"
#include "support/thrown.h"
#include "tandem/tandem.h"

namespace tandem {
namespace {

using testing::OnnxModel;
using testing::thrown;

std::string save(const OnnxModel& model, const std::string& name) {
  const std::string path = (std::filesystem::path(::testing::TempDir()) / name).string();
  std::ofstream(path, std::ios::binary) << model.proto.SerializeAsString();
  return path;
}

// y = factor · x + row, over the last dimension.
void scale_and_shift(const CustomCall& call) {
  const double factor = call.attributes.real("factor", 1);
  const auto* x = static_cast<const float*>(call.operands[0].data);
  const auto* row = static_cast<const float*>(call.operands[1].data);
  auto* y = static_cast<float*>(call.results[0].data);
  const std::int64_t n = call.operands[1].shape[0];
  for (std::int64_t i = 0; i < element_count(call.operands[0].shape); ++i) y[i] = static_cast<float>(factor * x[i] + row[i % n]);
}

// x [batch, 4] → the op → relu.
OnnxModel model_with(const std::string& op, float factor) {
  OnnxModel model;
  model.input("x", {"batch", "4"}).floats("row", {4}, {1, 2, 3, 4});
  onnx::NodeProto& node = model.node(op, {"x", "row"}, {"t"}, "mine");
  node.set_domain("acme");
  onnx::AttributeProto& attribute = testing::add_attribute(node, "factor", onnx::AttributeProto::FLOAT);
  attribute.set_f(factor);
  model.node("Relu", {"t"}, {"y"});
  model.output("y");
  return model;
}

std::vector<float> run(const Engine& engine, const std::vector<float>& x, std::int64_t batch) {
  const std::shared_ptr<const std::byte> data(reinterpret_cast<const std::byte*>(x.data()), [](const std::byte*) {});
  const RankArrays outputs = Model(engine).run(Arrays{{"x", Array{DType::f32, {batch, 4}, data}}});
  const Array& y = outputs.at("y").at(0);
  const auto* values = reinterpret_cast<const float*>(y.data.get());
  return {values, values + element_count(y.shape)};
}

const std::vector<float> kX = {1, 2, 3, 4, -1, -2, -3, -4, 0, 0, 0, 0, 5, -5, 5, -5};
const std::vector<float> kY = {3, 6, 9, 12, 0, 0, 0, 0, 1, 2, 3, 4, 11, 0, 13, 0};  // relu(2x + row)

TEST(CustomOp, OfOneRankAndOfSeveral) {
  register_op({.domain = "acme", .name = "Whole", .cpu = scale_and_shift});
  register_op({.domain = "acme", .name = "ByRows", .sharding = "b n, n -> b n", .cpu = scale_and_shift});
  const auto engine_of = [](const std::string& op, const std::string& mesh) {
    BuildOptions options;
    options.mesh = mesh;
    return build(save(model_with(op, 2), op + ".onnx"), options);
  };
  for (const char* op : {"Whole", "ByRows"}) EXPECT_EQ(run(engine_of(op, ""), kX, 4), kY) << op;
  const Engine split = engine_of("ByRows", "dp=2");
  EXPECT_EQ(run(split, kX, 4), kY);
  EXPECT_TRUE(split.collectives().empty());
  EXPECT_NE(split.inputs()[0].local_shape[0], "batch");
  EXPECT_NE(thrown([&] { engine_of("Whole", "dp=2"); }).message().find("nothing in the model can be split"), std::string::npos);
}

TEST(CustomOp, AnEngineFileNeedsTheSameOp) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");  // the child starts anew
  const std::string path = (std::filesystem::path(::testing::TempDir()) / "custom_op.tandem").string();
  if (!::testing::internal::InDeathTestChild()) {
    register_op({.domain = "acme", .name = "Stored", .cpu = scale_and_shift});
    build(save(model_with("Stored", 2), "stored.onnx")).save(path);
    EXPECT_EQ(run(load_engine(path), kX, 4), kY);
  }
  const auto life = [&] {  // in a process that has not registered it
    std::string said = "loaded";
    try {
      load_engine(path);
    } catch (const Error& error) {
      said = error.what();
    }
    std::fprintf(stderr, "%s\n", said.c_str());
    std::exit(0);
  };
  EXPECT_EXIT(life(), ::testing::ExitedWithCode(0), "op 'acme::Stored' is not registered");
}

// Result shapes that the op says, from extents and attributes of every kind.
TEST(CustomOp, InfersShapesAndReadsAttributes) {
  const std::string odd = "two words\n\"quoted\" i 5";
  register_op({.domain = "acme",
               .name = "Spread",
               .infer = [odd](std::span<const CustomType> operands, const CustomAttributes& attributes) -> std::vector<CustomType> {
                 if (attributes.text("odd", "") != odd)
                   throw Error(ErrorCode::invalid_model, "the text is '" + attributes.text("odd", "") + "'");
                 EXPECT_EQ(attributes.reals("numbers"), (std::vector<double>{0.5, -2}));
                 EXPECT_EQ(attributes.integers("absent", {7}), std::vector<std::int64_t>{7});
                 return {{operands[0].dtype,
                          {std::to_string(attributes.integer("copies", 1)) + "*(" + operands[0].shape[0] + ")", operands[0].shape[1]}},
                         {DType::i64, {}}};
               },
               .cpu =
                   [](const CustomCall& call) {
                     const auto* x = static_cast<const float*>(call.operands[0].data);
                     const std::int64_t count = element_count(call.operands[0].shape), all = element_count(call.results[0].shape);
                     for (std::int64_t i = 0; i < all; ++i) static_cast<float*>(call.results[0].data)[i] = x[i % count];
                     *static_cast<std::int64_t*>(call.results[1].data) = call.attributes.integers("sizes").at(1);
                     EXPECT_EQ(call.operands[1].data, nullptr);
                   }});
  OnnxModel model;
  model.input("x", {"batch", "4"});
  onnx::NodeProto& node = model.node("Spread", {"x", ""}, {"y", "n"}, "spread");
  node.set_domain("acme");
  testing::add_attribute(node, "copies", onnx::AttributeProto::INT).set_i(3);
  testing::add_attribute(node, "odd", onnx::AttributeProto::STRING).set_s(odd);
  onnx::AttributeProto& sizes = testing::add_attribute(node, "sizes", onnx::AttributeProto::INTS);
  for (const std::int64_t size : {4, -9}) sizes.add_ints(size);
  onnx::AttributeProto& numbers = testing::add_attribute(node, "numbers", onnx::AttributeProto::FLOATS);
  for (const float number : {0.5f, -2.0f}) numbers.add_floats(number);
  model.output("y").output("n");
  const Engine engine = build(save(model, "spread.onnx"));
  EXPECT_EQ(engine.outputs()[0].shape, (std::vector<std::string>{"3*batch", "4"}));
  const std::shared_ptr<const std::byte> data(reinterpret_cast<const std::byte*>(kX.data()), [](const std::byte*) {});
  const RankArrays outputs = Model(engine).run(Arrays{{"x", Array{DType::f32, {2, 4}, data}}});
  EXPECT_EQ(outputs.at("y").at(0).shape, (Shape{6, 4}));
  EXPECT_EQ(reinterpret_cast<const float*>(outputs.at("y").at(0).data.get())[17], kX[1]);
  EXPECT_EQ(*reinterpret_cast<const std::int64_t*>(outputs.at("n").at(0).data.get()), -9);
}

TEST(CustomOp, Mistakes) {
  const auto refused = [](CustomOp op, const std::string& words) {
    const Error error = thrown([&] { register_op(std::move(op)); });
    EXPECT_EQ(error.code(), ErrorCode::invalid_argument);
    EXPECT_NE(error.message().find(words), std::string::npos) << error.what();
  };
  refused({.domain = "ai.onnx", .name = "Relu", .cpu = scale_and_shift}, "ONNX's own");
  refused({.domain = "acme", .name = "Nothing"}, "code for no device");
  register_op({.domain = "acme", .name = "Broken", .cpu = [](const CustomCall&) { throw Error(ErrorCode::invalid_argument, "it broke"); }});
  refused({.domain = "acme", .name = "Broken", .cpu = scale_and_shift}, "registered already");
  const Error broke = thrown([] { run(build(save(model_with("Broken", 1), "broken.onnx")), kX, 4); });
  EXPECT_EQ(broke.message(), "it broke");
  EXPECT_NE(broke.node().find("mine"), std::string::npos) << broke.what();
  const Error missing = thrown([] { build(save(model_with("Unheard", 1), "unheard.onnx")); });
  EXPECT_EQ(missing.code(), ErrorCode::unsupported);
  EXPECT_NE(std::string(missing.what()).find("register it"), std::string::npos) << missing.what();
  register_op({.domain = "acme", .name = "OnlyGpus", .cuda = scale_and_shift});
  const Error elsewhere = thrown([] { build(save(model_with("OnlyGpus", 1), "only_gpus.onnx")); });
  EXPECT_NE(std::string(elsewhere.what()).find("without code for cpu"), std::string::npos) << elsewhere.what();
}

}  // namespace
}  // namespace tandem
