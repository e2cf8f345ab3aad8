// lower_precision: what is computed in f16, what stays f32, and that the result stays near.
#include <gtest/gtest.h>

#include <cmath>

#include "graph/builder.h"
#include "ops/ops.h"
#include "passes/evaluate.h"
#include "passes/pipeline.h"

namespace tandem {
namespace {

// y = (norm(x) w1 + b) w2 + x
std::unique_ptr<Module> make_block() {
  auto module = std::make_unique<Module>(all_ops());
  Graph& graph = module->add_graph("main");
  const auto weight = [&](const std::string& name, const Shape& shape) {
    return graph.weight_value(module->add_weight(name, Recipe::from_source(name, DType::f32, shape)));
  };
  Value* x = graph.add_input("x", {DType::f32, {Dim::symbol("n"), 8}});
  GraphBuilder builder(graph);
  Value* normed = builder.add("RmsNorm", {x, weight("scale", {8})});
  Value* hidden = builder.add("Add", {builder.add("MatMul", {normed, weight("w1", {8, 16})}), weight("b", {16})});
  graph.outputs().push_back({"y", builder.add("Add", {builder.add("MatMul", {hidden, weight("w2", {16, 8})}), x})});
  testing::fill_sources(*module);
  return module;
}

class LowerPrecision : public ::testing::TestWithParam<DType> {};

TEST_P(LowerPrecision, KeepsNormsAndPorts) {
  const auto module = make_block();
  const Graph& graph = module->main();
  const SymbolValues symbols = {{"n", 5}};
  const auto inputs = testing::random_inputs(graph, symbols);
  const Tensor want = testing::evaluate(graph, inputs, symbols).at("y");
  PipelineOptions options;
  options.pass.dtype = GetParam();
  options.phases = {Phase::simplify};
  run_pipeline(*module, options);
  const Graph& lowered = module->main();
  int products = 0, norms = 0;
  for (const auto& node : lowered.nodes()) {
    norms += node->is("RmsNorm");
    products += node->is("MatMul");
    const DType type = node->result()->type.dtype;
    if (node->is("RmsNorm")) {
      EXPECT_EQ(type, DType::f32);
    } else if (node->is("MatMul") || node->is("Add")) {
      EXPECT_EQ(type, GetParam());
    }
    // No cast of a weight at run time: recipes do that.
    EXPECT_FALSE(node->is("Cast") && node->operand(0)->weight()) << node->label();
  }
  EXPECT_EQ(products, 2);
  EXPECT_EQ(norms, 1);
  EXPECT_EQ(lowered.outputs()[0].value->type.dtype, DType::f32);
  const Tensor got = testing::evaluate(lowered, inputs, symbols).at("y");
  double largest = 0, worst = 0;
  for (std::int64_t i = 0; i < want.count(); ++i) {
    largest = std::max(largest, std::fabs(want.at(i)));
    worst = std::max(worst, std::fabs(want.at(i) - got.at(i)));
  }
  const double tolerance = GetParam() == DType::f16 ? 5e-3 : 4e-2;
  EXPECT_LT(worst, tolerance * largest);
  EXPECT_GT(worst, 0);  // it did change the arithmetic
}

INSTANTIATE_TEST_SUITE_P(Types, LowerPrecision, ::testing::Values(DType::f16, DType::bf16),
                         [](const auto& info) { return std::string(to_string(info.param)); });

TEST(LowerPrecision, DoesNothingUnasked) {
  const auto module = make_block();
  run_pipeline(*module, {.phases = {Phase::simplify}});
  for (const auto& node : module->main().nodes()) EXPECT_FALSE(node->is("Cast"));
}

}  // namespace
}  // namespace tandem
