// channels_last: which nodes it takes, what it leaves at their edges, and that random networks of images compute the same.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>

#include "core/check.h"
#include "graph/builder.h"
#include "graph/text.h"
#include "ops/ops.h"
#include "passes/evaluate.h"
#include "passes/pipeline.h"

namespace tandem {
namespace {

bool run(Module& module, ChannelsLast how) {
  PassOptions options;
  options.channels_last = how;
  const bool changed = pass_named("channels_last").run(module, options);
  verify(module);
  return changed;
}

int count(const Module& module, std::string_view op) {
  const auto& nodes = module.main().nodes();
  return static_cast<int>(std::ranges::count_if(nodes, [&](const auto& node) { return node->is(op); }));
}

void expect_same(const Graph& graph, const testing::Tensors& inputs, const testing::Tensors& wanted, const SymbolValues& symbols,
                 double tolerance) {
  const auto got = testing::evaluate(graph, inputs, symbols);
  ASSERT_EQ(got.size(), wanted.size());
  for (const auto& [name, want] : wanted) {
    const Tensor& y = got.at(name);
    ASSERT_EQ(y.shape(), want.shape()) << name;
    ASSERT_EQ(y.dtype(), want.dtype()) << name;
    double largest = 1e-30;
    for (const double v : want.to_doubles()) largest = std::max(largest, std::fabs(v));
    for (std::int64_t i = 0; i < y.count(); ++i) ASSERT_LE(std::fabs(y.at(i) - want.at(i)), tolerance * largest) << name << " at " << i;
  }
}

// As a residual network begins and ends.
constexpr std::string_view kNetwork = R"(module mesh()
weight %w1: {0}[8,3,3,3] = source("w1", {0}[8,3,3,3])
weight %b1: {0}[8,1,1] = source("b1", {0}[8,1,1])
weight %w2: {0}[16,8,1,1] = source("w2", {0}[16,8,1,1])
weight %w3: {0}[16,8,3,3] = source("w3", {0}[16,8,3,3])
weight %b3: {0}[16] = source("b3", {0}[16])
weight %scale: {0}[16,1,1] = source("scale", {0}[16,1,1])
program main symbols(B=1:2:8) {{
  input %image: {0}[B,3,12,12]
  weight %w1: {0}[8,3,3,3]
  weight %b1: {0}[8,1,1]
  weight %w2: {0}[16,8,1,1]
  weight %w3: {0}[16,8,3,3]
  weight %b3: {0}[16]
  weight %scale: {0}[16,1,1]
  %a = Conv(%image, %w1, %b1) {{strides=[2,2], pads=[1,1,1,1], activation="relu"}}
  %p = MaxPool(%a) {{kernel=[3,3], strides=[2,2], pads=[1,1,1,1]}}
  %short = Conv(%p, %w2)
  %y = Conv(%p, %w3, %b3, %short) {{pads=[1,1,1,1], activation="relu"}}
  %scaled = Mul(%y, %scale)
  %mean = Reduce(%scaled) {{kind="mean", axes=[2,3], keepdims=true}}
  %flat = Reshape(%mean) {{shape=[B,16]}}
  return %flat as "flat", %y as "y"
}}
)";

std::unique_ptr<Module> network(std::string_view dtype) {
  auto module = parse_module(fmt::format(kNetwork, dtype), all_ops());
  verify(*module);
  testing::fill_sources(*module);
  return module;
}

TEST(ChannelsLast, OnlyTheEdgesAreTransposed) {
  for (const std::string dtype : {"f16", "bf16"}) {
    const auto module = network(dtype);
    const SymbolValues symbols = testing::symbols_of(module->main());
    const auto inputs = testing::random_inputs(module->main(), symbols);
    const auto wanted = testing::evaluate(module->main(), inputs, symbols);
    EXPECT_TRUE(run(*module, ChannelsLast::where_it_saves));
    EXPECT_EQ(count(*module, "Transpose"), 2) << print(*module);  // of the image, and of y, which is an output
    EXPECT_EQ(count(*module, "Pad"), 1);
    for (const auto& node : module->main().nodes()) {
      if (node->attributes.has("layout")) {
        EXPECT_EQ(node->attributes.text("layout"), "channels_last") << node->label();
      }
      if (node->is("Conv")) {
        EXPECT_EQ(node->operand(0)->type.dims.back().constant() % 8, 0) << node->label();
      }
      if (node->is("Conv")) {
        EXPECT_NE(node->operand(1)->weight(), nullptr) << "weights are brought there by recipes";
      }
      if (node->is("Pad")) {
        EXPECT_EQ(node->operand(0)->name(), "image") << "three channels are widened before they are transposed";
      }
    }
    expect_same(module->main(), inputs, wanted, symbols, dtype == "f16" ? 1e-3 : 8e-3);
    const auto again = parse_module(print(*module), all_ops());
    EXPECT_EQ(print(*again), print(*module));
    EXPECT_FALSE(run(*module, ChannelsLast::where_it_saves)) << "nothing is left to do";
  }
}

TEST(ChannelsLast, OffIsOff) {
  const auto module = network("f16");
  const std::string before = print(*module);
  EXPECT_FALSE(run(*module, ChannelsLast::off));
  EXPECT_EQ(print(*module), before);
  run_pipeline(*module, {.phases = {Phase::fuse}});
  EXPECT_EQ(print(*module).find("channels_last"), std::string::npos) << "nobody asked for it";
}

TEST(ChannelsLast, WhatSavesNothingStays) {
  const auto unchanged = [](const std::string& body, const std::string& dtype = "f16") {
    const auto module = parse_module(fmt::format(R"(module mesh()
weight %w: {0}[8,8,3,3] = source("w", {0}[8,8,3,3])
weight %v: {0}[8,8,3,3] = source("v", {0}[8,8,3,3])
weight %narrow: {0}[4,8,1,1] = source("narrow", {0}[4,8,1,1])
weight %few: {0}[8,4,1,1] = source("few", {0}[8,4,1,1])
weight %s: f32[8] = source("s", f32[8])
program main symbols(B=1:2:8) {{
  input %x: {0}[B,8,6,6]
  weight %w: {0}[8,8,3,3]
  weight %v: {0}[8,8,3,3]
  weight %narrow: {0}[4,8,1,1]
  weight %few: {0}[8,4,1,1]
  weight %s: f32[8]
{1}
}}
)",
                                                 dtype, body),
                                     all_ops());
    verify(*module);
    const std::string before = print(*module);
    const bool changed = run(*module, ChannelsLast::where_it_saves);
    EXPECT_EQ(changed, print(*module) != before);
    return !changed;
  };
  const std::string one = "  %y = Conv(%x, %w)\n  return %y as \"y\"",
                    two = "  %a = Conv(%x, %w)\n  %y = Conv(%a, %v)\n  return %y as \"y\"";
  EXPECT_TRUE(unchanged(one));
  EXPECT_FALSE(unchanged(two));
  EXPECT_TRUE(unchanged(two, "f32")) << "cuDNN's kernels of f32 read them as they are";
  EXPECT_TRUE(unchanged("  %a = Conv(%x, %narrow)\n  %y = Conv(%a, %few)\n  return %y as \"y\""))
      << "four channels are brought into eight by the kernel";
  EXPECT_TRUE(unchanged("  %a = Conv(%x, %w)\n  %b = Transpose(%a) {permutation=[0,1,3,2]}\n  %y = Conv(%b, %v)\n  return %y as \"y\""));
}

TEST(ChannelsLast, CastsAtTheEdgesStayOutside) {
  const auto module = parse_module(R"(module mesh()
weight %w: f16[8,8,3,3] = source("w", f16[8,8,3,3])
weight %v: f16[8,8,3,3] = source("v", f16[8,8,3,3])
program main {
  input %x: f32[2,8,6,6]
  weight %w: f16[8,8,3,3]
  weight %v: f16[8,8,3,3]
  %h = Cast(%x) {to=f16}
  %a = Conv(%h, %w)
  %b = Relu(%a)
  %c = Conv(%b, %v)
  %y = Cast(%c) {to=f32}
  return %y as "y"
}
)",
                                   all_ops());
  EXPECT_TRUE(run(*module, ChannelsLast::where_it_saves));
  EXPECT_EQ(count(*module, "Transpose"), 2);
  for (const auto& node : module->main().nodes())
    if (node->is("Transpose")) {
      EXPECT_EQ(node->result()->type.dtype, DType::f16) << print(*module);
    }
}

TEST(ChannelsLast, GivenByTheModelIsFusedAndRefusedByItsOwnRules) {
  const auto text = [](const std::string& weight) {
    return fmt::format(R"(module mesh()
weight %w: f32[{0}] = source("w", f32[{0}])
weight %b: f32[16] = source("b", f32[16])
weight %column: f32[6,1,1] = source("column", f32[6,1,1])
program main {{
  input %x: f32[2,6,6,8]
  weight %w: f32[{0}]
  weight %b: f32[16]
  weight %column: f32[6,1,1]
  %a = Conv(%x, %w) {{layout="channels_last", pads=[1,1,1,1]}}
  %c = Add(%a, %b)
  %m = Mul(%c, %column)
  %y = Relu(%m)
  return %y as "y"
}}
)",
                       weight);
  };
  const auto module = parse_module(text("16,3,3,8"), all_ops());
  verify(*module);
  testing::fill_sources(*module);
  const auto inputs = testing::random_inputs(module->main(), {});
  const auto wanted = testing::evaluate(module->main(), inputs, {});
  run_pipeline(*module, {});
  EXPECT_EQ(count(*module, "Add"), 0) << "[m] is the bias";
  expect_same(module->main(), inputs, wanted, {}, 1e-6);
  EXPECT_THROW(verify(*parse_module(text("16,8,3,3"), all_ops())), Error);
}

// Networks of images, in which every kind of node that the pass knows stands beside ones that it does not.
class Author {
 public:
  explicit Author(unsigned seed) : random_(seed), module_(std::make_unique<Module>(all_ops())), graph_(module_->add_graph("main")) {
    graph_.profiles = {{{"B", {1, 2, 4}}}};
    images_ = {graph_.add_input("x", {DType::f32, {Dim::symbol("B"), 1 + pick(9), 6, 5}}),
               graph_.add_input("z", {DType::f32, {Dim::symbol("B"), 8, 6, 5}})};
    for (int i = 0; i < 10; ++i) images_.push_back(next());
    for (int i = 0; i < 3; ++i)
      graph_.outputs().push_back({fmt::format("y{}", i), images_[images_.size() - 1 - static_cast<std::size_t>(i)]});
    graph_.outputs().push_back(
        {"mean",
         add("Reduce", {any()}, {{"kind", std::string("mean")}, {"axes", std::vector<std::int64_t>{-1, 2}}, {"keepdims", pick(2) == 0}})});
    graph_.erase_dead();
    testing::fill_sources(*module_);
  }
  std::unique_ptr<Module> take() { return std::move(module_); }

 private:
  std::int64_t pick(std::int64_t n) { return static_cast<std::int64_t>(random_() % static_cast<unsigned>(n)); }
  Value* any() { return images_[static_cast<std::size_t>(pick(static_cast<std::int64_t>(images_.size())))]; }
  Value* add(std::string_view op, std::vector<Value*> operands, const NamedAttributes& attributes = {}) {
    return graph_.add(module_->op(op), std::move(operands), attributes)->result();
  }
  Value* weight(const Shape& shape) {
    const std::string name = fmt::format("w{}", weights_++);
    return graph_.weight_value(module_->add_weight(name, Recipe::from_source(name, DType::f32, shape)));
  }
  static std::int64_t channels(const Value* x) { return x->type.dims[1].constant(); }
  // Another image of the same type, or the same.
  Value* like(Value* x) {
    for (int i = 0; i < 8; ++i)
      if (Value* other = any(); other->type == x->type) return other;
    return x;
  }

  Value* convolved() {
    Value* x = any();
    const std::int64_t in = channels(x), taps = pick(2) ? 3 : 1, groups = pick(4) == 0 ? in : 1,
                       out = groups > 1 ? in
                             : pick(2)  ? 8
                                        : 1 + pick(9);
    std::vector<Value*> operands = {x, weight({out, in / groups, taps, taps})};
    const NamedAttributes attributes = {{"pads", std::vector<Dim>(4, Dim(taps / 2))},
                                        {"activation", std::string(pick(2) ? "relu" : "none")}};
    if (pick(2)) operands.push_back(pick(2) ? weight({out}) : weight({out, 1, 1}));
    if (operands.size() == 3 && pick(2)) {
      Value* residual = like(add("Conv", operands, attributes));
      operands.push_back(residual);
    }
    return add("Conv", operands, attributes);
  }

  Value* next() {
    Value* x = any();
    switch (pick(9)) {
      case 0: return add("Add", {x, like(x)});
      case 1: return add("Mul", {weight({channels(x), 1, 1}), x});
      case 2: return add("Relu", {x});
      case 3: return add("Concat", {x, like(x)}, {{"axis", std::int64_t{pick(2) ? 1 : -3}}});
      case 4: return add("MaxPool", {x}, {{"kernel", std::vector<std::int64_t>{3, 3}}, {"pads", std::vector<Dim>(4, Dim(1))}});
      case 5: return add("Add", {x, weight({1, channels(x), 6, 5})});
      case 6: return add("Softmax", {x}, {{"axis", std::int64_t{1}}});
      case 7:
        return add(
            "Mul",
            {x, add("Sigmoid",
                    {add("Reduce", {x}, {{"kind", std::string("mean")}, {"axes", std::vector<std::int64_t>{2, 3}}, {"keepdims", true}})})});
      default: return convolved();
    }
  }

  std::mt19937 random_;
  std::unique_ptr<Module> module_;
  Graph& graph_;
  std::vector<Value*> images_;
  int weights_ = 0;
};

TEST(ChannelsLast, RandomNetworksComputeTheSame) {
  int changed = 0;
  for (unsigned seed = 0; seed < 200; ++seed) {
    SCOPED_TRACE(fmt::format("seed {}", seed));
    const auto module = Author(seed).take();
    verify(*module);
    const std::string before = print(*module);
    const SymbolValues symbols = testing::symbols_of(module->main());
    const auto inputs = testing::random_inputs(module->main(), symbols);
    const auto wanted = testing::evaluate(module->main(), inputs, symbols);
    changed += run(*module, ChannelsLast::everywhere);
    expect_same(module->main(), inputs, wanted, symbols, 1e-5);
    if (HasFatalFailure()) FAIL() << before << print(*module);
    run_pipeline(*module, {.phases = {Phase::fuse}});
    expect_same(module->main(), inputs, wanted, symbols, 1e-5);
  }
  EXPECT_GT(changed, 100);
}

}  // namespace
}  // namespace tandem
