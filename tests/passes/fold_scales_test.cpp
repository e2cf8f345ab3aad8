// fold_scales: what is left of batch normalization behind a convolution, and that it computes the same.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "graph/builder.h"
#include "ops/ops.h"
#include "passes/evaluate.h"
#include "passes/pipeline.h"

namespace tandem {
namespace {

struct Block {
  explicit Block(std::int64_t channels, bool bias, std::string activation = "none") : module(std::make_unique<Module>(all_ops())) {
    Graph& graph = module->add_graph("main");
    const auto weight = [&](const std::string& name, const Shape& shape) {
      return graph.weight_value(module->add_weight(name, Recipe::from_source(name, DType::f32, shape)));
    };
    const auto column = [&](const std::string& name) {
      return graph.add(module->op("Reshape"), {weight(name, {channels})}, {{"shape", std::vector<Dim>{channels, 1}}})->result();
    };
    const auto add = [&](const char* op, std::vector<Value*> operands) { return graph.add(module->op(op), std::move(operands))->result(); };
    Value* x = graph.add_input("x", {DType::f32, {Dim::symbol("n"), 3, 7}});
    Value* y = graph.add(module->op("Conv"), {x, weight("w", {channels, 3, 2})}, {{"activation", activation}})->result();
    if (bias) y = add("Add", {y, column("b")});
    y = add("Mul", {add("Reciprocal", {add("Softplus", {column("variance")})}), y});
    graph.outputs().push_back({"y", add("Add", {y, column("offset")})});
    testing::fill_sources(*module);
  }
  // The ops that are left, constants aside.
  std::vector<std::string> ops() const {
    std::vector<std::string> names;
    for (const auto& node : module->main().nodes())
      if (!node->is("Constant")) names.emplace_back(node->op().name);
    return names;
  }
  Tensor run() const {
    const SymbolValues symbols = {{"n", 2}};
    return testing::evaluate(module->main(), testing::random_inputs(module->main(), symbols), symbols).at("y");
  }
  bool fold() {
    const bool changed = pass_named("fold_scales").run(*module, {});
    pass_named("remove_dead").run(*module, {});
    verify(*module);
    return changed;
  }
  std::unique_ptr<Module> module;
};

TEST(FoldScales, OneConvolutionAndOneBiasAreLeft) {
  for (const std::int64_t channels : {4, 100})
    for (const bool bias : {false, true}) {
      SCOPED_TRACE(fmt::format("{} channels, bias {}", channels, bias));
      Block block(channels, bias);
      const Tensor wanted = block.run();
      EXPECT_TRUE(block.fold());
      EXPECT_EQ(block.ops(), (std::vector<std::string>{"Conv", "Add"}));
      const Tensor got = block.run();
      ASSERT_EQ(got.shape(), wanted.shape());
      for (std::int64_t i = 0; i < got.count(); ++i) ASSERT_NEAR(got.at(i), wanted.at(i), 1e-5) << i;
      EXPECT_TRUE(block.module->folded_sources.contains("w"));
      EXPECT_TRUE(block.module->folded_sources.contains("variance"));
      EXPECT_FALSE(block.fold());
    }
}

TEST(FoldScales, LeavesWhatMustStayRefittableAndWhatIsActivated) {
  Block refittable(4, true);
  refittable.module->refittable = true;
  EXPECT_FALSE(refittable.fold());
  Block activated(4, false, "relu");
  const auto before = activated.ops();
  EXPECT_FALSE(activated.fold());
  EXPECT_EQ(activated.ops(), before);
}

}  // namespace
}  // namespace tandem
