// A cache split over ranks, that are threads here, with real kernels, against the plain evaluation of the whole program.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "build/build.h"
#include "core/check.h"
#include "graph/text.h"
#include "ops/ops.h"
#include "passes/evaluate.h"
#include "passes/pipeline.h"
#include "team/team.h"
#include "team/weights.h"

namespace tandem {
namespace {

// Two blocks of 4 query heads over 2 kv heads; the mask has a column for every key, and rows where `rows` says so.
std::string decoder(const std::string& rows, const std::string& causal) {
  std::string text = "module\n", uses, body = "  %h0 = Gather(%table, %ids)\n", outputs, inputs = "  input %ids: i64[B,S]\n";
  inputs += fmt::format("  input %mask: bool[B,1,{},P+S]\n", rows);
  const auto weight = [&](const std::string& name, const std::string& type) {
    text += fmt::format("weight %{0}: {1} = source(\"{0}\", {1})\n", name, type);
    uses += fmt::format("  weight %{}: {}\n", name, type);
  };
  weight("table", "f32[12,16]");
  for (int i = 0; i < 2; ++i) {
    weight(fmt::format("wq{}", i), "f32[16,16]");
    for (const char* w : {"wk", "wv"}) weight(fmt::format("{}{}", w, i), "f32[16,8]");
    weight(fmt::format("wo{}", i), "f32[16,16]");
    for (const char* c : {"key", "value"}) inputs += fmt::format("  input %past.{}.{}: f32[B,2,P,4]\n", i, c);
    body += fmt::format(R"(  %q{0} = MatMul(%h{0}, %wq{0})
  %k{0} = MatMul(%h{0}, %wk{0})
  %v{0} = MatMul(%h{0}, %wv{0})
  %q{0}.h = Reshape(%q{0}) {{shape=[B,S,4,4]}}
  %k{0}.h = Reshape(%k{0}) {{shape=[B,S,2,4]}}
  %v{0}.h = Reshape(%v{0}) {{shape=[B,S,2,4]}}
  %q{0}.t = Transpose(%q{0}.h) {{permutation=[0,2,1,3]}}
  %k{0}.t = Transpose(%k{0}.h) {{permutation=[0,2,1,3]}}
  %v{0}.t = Transpose(%v{0}.h) {{permutation=[0,2,1,3]}}
  %k{0}.all = Concat(%past.{0}.key, %k{0}.t) {{axis=2}} "key {0}"
  %v{0}.all = Concat(%past.{0}.value, %v{0}.t) {{axis=2}} "value {0}"
  %a{0} = Attention(%q{0}.t, %k{0}.all, %v{0}.all, %mask) {{scale=0.5, causal="{1}"}} "attention {0}"
  %a{0}.t = Transpose(%a{0}) {{permutation=[0,2,1,3]}}
  %a{0}.r = Reshape(%a{0}.t) {{shape=[B,S,16]}}
  %o{0} = MatMul(%a{0}.r, %wo{0})
  %h{2} = Add(%h{0}, %o{0})
)",
                        i, causal, i + 1);
    outputs += fmt::format("  return %k{0}.all as \"present.{0}.key\"\n  return %v{0}.all as \"present.{0}.value\"\n", i);
  }
  return text + "program main symbols(B=1:1:4, P=0:64:128, S=1:1:16) {\n" + inputs + uses + body + "  return %h2 as \"last\"\n" + outputs +
         "}\n";
}

struct Decoder {
  std::shared_ptr<Module> module;
  std::shared_ptr<const Plan> plan;
};

Decoder sharded(const std::string& text, const std::string& mesh) {
  Decoder d{parse_module(text, all_ops()), {}};
  testing::fill_sources(*d.module);
  run_pipeline(*d.module, {.pass = {.mesh = Mesh::parse(mesh)}});
  d.plan = std::make_shared<const Plan>(build_plan(*d.module));
  return d;
}

double largest(const Tensor& tensor) {
  double most = 0;
  for (const double v : tensor.to_doubles()) most = std::max(most, std::abs(v));
  return most;
}

void expect_near(const TeamTensors& got, const testing::Tensors& wanted) {
  ASSERT_EQ(got.size(), wanted.size());
  for (const auto& [name, tensor] : wanted) {
    const Tensor& mine = got.at(name).at(0);
    ASSERT_EQ(mine.shape(), tensor.shape()) << name;
    const double limit = 1e-5 * std::max(1.0, largest(tensor));
    for (std::int64_t i = 0; i < tensor.count(); ++i) ASSERT_NEAR(mine.at(i), tensor.at(i), limit) << name << " at " << i;
  }
}

class CacheOnMesh : public ::testing::TestWithParam<const char*> {};
INSTANTIATE_TEST_SUITE_P(Meshes, CacheOnMesh, ::testing::Values("cp=2", "cp=3", "cp=4", "cp=2,tp=2", "dp=2,cp=2", "tp=4,cp=2"));

// Lengths that the ranks divide or not, shorter than the ranks are many, none at all; one new row and several.
TEST_P(CacheOnMesh, GivesWhatTheWholeProgramGives) {
  for (const auto& [rows, causal] : {std::pair{"1", "lower_right"}, {"S", "none"}}) {
    const std::string text = decoder(rows, causal);
    const auto whole = parse_module(text, all_ops());
    testing::fill_sources(*whole);
    const Decoder d = sharded(text, GetParam());
    for (const auto& node : d.module->main().nodes()) EXPECT_TRUE(!node->is("Attention") || node->attributes.text("split") == "kv");
    Team team({d.plan}, weights_of(d.module, d.plan->mesh), {});
    for (const std::int64_t past : {0, 1, 2, 3, 7, 8, 33})
      for (const std::int64_t fresh : {1, 2, 5}) {
        SCOPED_TRACE(fmt::format("past {} new {} causal {}", past, fresh, causal));
        const SymbolValues symbols = {{"B", 1 + past % 2}, {"P", past}, {"S", fresh}};
        const testing::Tensors inputs = testing::random_inputs(whole->main(), symbols);
        TeamTensors given;
        for (const auto& [name, tensor] : inputs) given[name] = {tensor};
        expect_near(team.run(given), testing::evaluate(whole->main(), inputs, symbols));
      }
  }
}

// What comes out goes in again: the same tokens one at a time give what they give together.
TEST_P(CacheOnMesh, GrowsTokenByToken) {
  const std::string text = decoder("1", "lower_right");
  const auto whole = parse_module(text, all_ops());
  testing::fill_sources(*whole);
  const Decoder d = sharded(text, GetParam());
  Team team({d.plan}, weights_of(d.module, d.plan->mesh), {});
  constexpr std::int64_t kTokens = 13;
  testing::Tensors all = testing::random_inputs(whole->main(), {{"B", 1}, {"P", 0}, {"S", kTokens}});
  const testing::Tensors wanted = testing::evaluate(whole->main(), all, {{"B", 1}, {"P", 0}, {"S", kTokens}});
  const auto near = [&](const Tensor& got, std::int64_t i, const std::string& name, std::int64_t j) {
    const double limit = 1e-5 * std::max(1.0, largest(wanted.at(name)));
    ASSERT_NEAR(got.at(i), wanted.at(name).at(j), limit) << name << " at " << j;
  };
  TeamTensors state;
  for (int i = 0; i < 2; ++i)
    for (const char* c : {"key", "value"}) state[fmt::format("past.{}.{}", i, c)] = {Tensor(DType::f32, {1, 2, 0, 4})};
  for (std::int64_t t = 0; t < kTokens; ++t) {
    state["ids"] = {Tensor::of_ints(DType::i64, {1, 1}, std::vector<std::int64_t>{all.at("ids").int_at(t)})};
    std::vector<std::int64_t> mask;
    for (std::int64_t j = 0; j <= t; ++j) mask.push_back(all.at("mask").int_at(j));
    state["mask"] = {Tensor::of_ints(DType::boolean, {1, 1, 1, t + 1}, mask)};
    const TeamTensors out = team.run(state);
    for (std::int64_t c = 0; c < 16; ++c) near(out.at("last")[0], c, "last", t * 16 + c);
    for (int i = 0; i < 2; ++i)
      for (const char* c : {"key", "value"}) state[fmt::format("past.{}.{}", i, c)] = out.at(fmt::format("present.{}.{}", i, c));
  }
  for (const char* name : {"0.key", "0.value", "1.key", "1.value"}) {
    const Tensor& got = state.at(fmt::format("past.{}", name))[0];
    for (std::int64_t i = 0; i < got.count(); ++i) near(got, i, fmt::format("present.{}", name), i);
  }
}

// One exchange an attention, whose bytes know nothing of the cache; appending moves the rows by which blocks grow.
TEST(CachePlan, SaysWhatIsSent) {
  const Decoder d = sharded(decoder("1", "lower_right"), "cp=4");
  std::map<std::string, int> count;
  for (const CollectiveUse& use : d.plan->collectives) {
    ++count[use.operation];
    const auto sent = [&](std::int64_t past) { return use.bytes.evaluate({{"B", 1}, {"P", past}, {"S", 1}}); };
    const bool attention = use.operation == "attention";
    EXPECT_EQ(sent(1000), attention ? 3 * 4 * 4 * (4 + 2) : 3 * 2 * 4 * 4);
    for (const std::int64_t past : {1001, 1002, 1003}) EXPECT_EQ(sent(past), attention ? sent(1000) : 0);
  }
  EXPECT_EQ(count, (std::map<std::string, int>{{"append", 4}, {"attention", 2}}));
}

// A rank holds its block of what comes in and of what goes out.
TEST(CachePlan, ARankHoldsItsPart) {
  const Decoder d = sharded(decoder("1", "lower_right"), "cp=4");
  const Program& program = d.plan->programs.at(0);
  const auto elements = [](const Type& type) {
    std::int64_t count = 1;
    for (const Dim& dim : type.dims) count *= dim.evaluate({{"B", 1}, {"P", 1000}, {"S", 1}});
    return count;
  };
  const auto local = [&](const Binding& binding) { return elements(program.values.at(static_cast<std::size_t>(binding.value)).type); };
  for (const Binding& input : program.inputs) EXPECT_TRUE(!input.name.starts_with("past") || local(input) == 2 * 250 * 4) << input.name;
  for (const Binding& output : program.outputs)
    EXPECT_TRUE(!output.name.starts_with("present") || local(output) == 2 * 251 * 4) << output.name;
  for (const PlanValue& value : program.values) EXPECT_LE(elements(value.type), 2 * 251 * 4) << value.name;
}

}  // namespace
}  // namespace tandem
