// Runs every NAME.txt beside this file: a line `passes: a, b`, a module, a line `----`, and the module expected after those
// passes and a last remove_dead. Both sides are also evaluated on the same random inputs, but for those with collectives.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "core/check.h"
#include "graph/text.h"
#include "ops/ops.h"
#include "passes/evaluate.h"
#include "passes/pipeline.h"
#include "passes/text_case.h"

namespace tandem {
namespace {

using testing::TextCase;

TextCase read_case(const std::string& name) { return testing::read_case(TANDEM_PASS_TESTS, name); }

// "a, b" of a case's first line.
std::vector<std::string> passes_of(const TextCase& c) {
  std::vector<std::string> passes;
  std::stringstream names(c.given);
  for (std::string name; std::getline(names, name, ',');) passes.push_back(name.substr(name.find_first_not_of(' ')));
  return passes;
}

void expect_near(const Tensor& got, const Tensor& wanted, double tolerance, const std::string& name) {
  ASSERT_EQ(got.shape(), wanted.shape()) << name;
  ASSERT_EQ(got.dtype(), wanted.dtype()) << name;
  double scale = 1e-30;
  for (double v : wanted.to_doubles()) scale = std::isfinite(v) ? std::max(scale, std::abs(v)) : scale;
  for (std::int64_t i = 0; i < got.count(); ++i) {
    if (std::isnan(wanted.at(i))) EXPECT_TRUE(std::isnan(got.at(i))) << name << " at " << i;
    else EXPECT_LE(std::abs(got.at(i) - wanted.at(i)), tolerance * scale) << name << " at " << i;
  }
}

bool communicates(const Graph& graph) {
  return std::ranges::any_of(graph.nodes(), [](const auto& node) { return node->op().collective; });
}

class PassText : public ::testing::TestWithParam<std::string> {};

TEST_P(PassText, GivesTheExpectedProgramAndTheSameResults) {
  const TextCase c = read_case(GetParam());
  const auto module = parse_module(c.before, all_ops());
  testing::fill_sources(*module);
  verify(*module);
  const SymbolValues symbols = testing::symbols_of(module->main());
  const testing::Tensors inputs = testing::random_inputs(module->main(), symbols);
  const bool alone = !communicates(module->main());  // collectives need ranks
  const testing::Tensors wanted = alone ? testing::evaluate(module->main(), inputs, symbols) : testing::Tensors();
  for (const std::string& name : passes_of(c)) pass_named(name).run(*module, {});
  pass_named("remove_dead").run(*module, {});
  verify(*module);
  EXPECT_EQ(testing::program_text(*module), c.after);
  if (!alone) return;
  const testing::Tensors got = testing::evaluate(module->main(), inputs, symbols);
  ASSERT_EQ(got.size(), wanted.size());
  for (const auto& [name, tensor] : wanted) expect_near(got.at(name), tensor, 2e-6, name);
}

INSTANTIATE_TEST_SUITE_P(Files, PassText, ::testing::ValuesIn(testing::case_names(TANDEM_PASS_TESTS)),
                         [](const auto& info) { return info.param; });

TEST(FlattenAttention, OverRanksIsForGpusAndForRowsThatAllCount) {
  constexpr std::string_view kText = R"(module mesh(cp=2)
program main {{
  input %qkv: f32[1,8,3,2,4]
  input %count: i64[1]
  %qs = Slice(%qkv) {{starts=[1], ends=[2], axes=[2]}}
  %qh = Reshape(%qs) {{shape=[1,8,2,4]}}
  %q = Transpose(%qh) {{permutation=[0,2,1,3]}}
  %a = Attention(%q, %q, %q{}) {{axis="cp", num_ranks=2, split="{}", layout="zigzag", algorithm="ring", extent=15, kv_extent=15}}
  %y = Transpose(%a) {{permutation=[0,2,1,3]}}
  return %y as "y"
}}
)";
  const auto flattened = [&](const std::string& operands, const std::string& split, const std::string& device) {
    const auto module = parse_module(fmt::format(kText, operands, split), all_ops());
    PassOptions options;
    options.device = device;
    pass_named("flatten_attention").run(*module, options);
    pass_named("remove_dead").run(*module, options);
    verify(*module);
    return print(*module);
  };
  const std::string flat = flattened("", "qkv", "cuda");
  EXPECT_NE(flat.find("FlatAttention"), std::string::npos) << flat;
  EXPECT_EQ(flat.find("Transpose"), std::string::npos) << flat;
  for (const char* kept :
       {R"(axis="cp")", "num_ranks=2", R"(layout="zigzag")", R"(algorithm="ring")", "extent=15", "kv_extent=15", "begins=[8,8,8]"})
    EXPECT_NE(flat.find(kept), std::string::npos) << kept << " in " << flat;
  for (const auto& [operands, split, device] : {std::tuple{"", "qkv", "cpu"}, {"", "kv", "cuda"}, {", _, %count", "qkv", "cuda"}})
    EXPECT_EQ(flattened(operands, split, device).find("FlatAttention"), std::string::npos) << operands << split << device;
}

TEST(Pipeline, RefusesAnUnknownPassAndListsTheNames) {
  Module module(all_ops());
  module.add_graph("main");
  try {
    run_pipeline(module, {.disabled = {"no_such_pass"}});
    FAIL() << "accepted";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::invalid_argument);
    EXPECT_NE(error.message().find("recognise_attention"), std::string::npos);
  }
}

TEST(Pipeline, ADisabledPassDoesNotRun) {
  const TextCase c = read_case("recognise_silu");
  const auto module = parse_module(c.before, all_ops());
  std::vector<std::string> ran;
  run_pipeline(*module, {.disabled = {"recognise_silu"}, .timing = [&](const Pass& pass, double, bool) { ran.emplace_back(pass.name); }});
  EXPECT_EQ(std::ranges::count(ran, "recognise_silu"), 0);
  EXPECT_EQ(std::ranges::count(ran, "recognise_gelu"), 1);
  EXPECT_EQ(print(*module).find("Silu"), std::string::npos);
}

TEST(Pipeline, CollectivesOfAProgramPerRankStay) {
  for (const char* name : {"reduce_terms", "fuse_reduce_norm"}) {
    const TextCase c = read_case(name);
    const auto module = parse_module(c.before, all_ops());
    PipelineOptions options{.phases = {Phase::fuse}};
    options.pass.same_program = false;
    run_pipeline(*module, options);
    const std::string text = print(*module);
    EXPECT_EQ(text.find("AllReduceAdd"), std::string::npos) << text;
    const auto reduced = [&](const std::string& value) { return text.find("= AllReduce(" + value + ")") != std::string::npos; };
    EXPECT_TRUE(std::string_view(name) == "reduce_terms" ? reduced("%h1") && reduced("%h2") : reduced("%x") && reduced("%p")) << text;
  }
}

TEST(Pipeline, EveryPassCanBeSwitchedOff) {
  const TextCase c = read_case("recognise_silu");
  for (const Pass& off : all_passes()) {
    const auto module = parse_module(c.before, all_ops());
    const std::set<std::string> disabled = {std::string(off.name)};
    run_pipeline(*module, {.disabled = disabled, .timing = [&](const Pass& pass, double, bool) { EXPECT_NE(pass.name, off.name); }});
  }
}

std::string contents(const std::filesystem::path& path) {
  std::ifstream file(path);
  std::stringstream text;
  text << file.rdbuf();
  return text.str();
}

TEST(Pipeline, DumpsTheModuleAfterEachPassUnderItsNumber) {
  const TextCase c = read_case("recognise_silu");
  const auto module = parse_module(c.before, all_ops());
  const std::string before = print(*module);
  const std::filesystem::path dump = std::filesystem::path(::testing::TempDir()) / "tandem_dump" / "nested";
  std::filesystem::remove_all(dump);
  std::vector<std::string> expected = {"00_import.txt"};
  run_pipeline(*module, {.dump = dump, .timing = [&](const Pass& pass, double, bool) {
                           expected.push_back(fmt::format("{:02}_{}.txt", expected.size(), pass.name));
                         }});
  std::vector<std::string> found;
  for (const auto& entry : std::filesystem::directory_iterator(dump)) found.push_back(entry.path().filename());
  std::ranges::sort(found);
  EXPECT_EQ(found, expected);
  EXPECT_EQ(expected.size(), all_passes().size() + 1);
  EXPECT_EQ(contents(dump / expected.front()), before);
  EXPECT_EQ(contents(dump / expected.back()), print(*module));
  for (const std::string& name : found) verify(*parse_module(contents(dump / name), all_ops()));
  std::filesystem::remove_all(dump.parent_path());
}

TEST(Pipeline, SaysWhereADumpCannotBeWritten) {
  const std::filesystem::path file = std::filesystem::path(::testing::TempDir()) / "tandem_no_folder";
  std::ofstream(file) << "in the way";
  Module module(all_ops());
  module.add_graph("main");
  try {
    run_pipeline(module, {.dump = file / "dump"});
    FAIL() << "accepted";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::io);
    EXPECT_NE(error.message().find("00_import.txt"), std::string::npos);
  }
  std::filesystem::remove(file);
}

}  // namespace
}  // namespace tandem
