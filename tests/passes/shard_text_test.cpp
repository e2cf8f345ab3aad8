// Runs every shard/NAME.txt: a line `mesh: …`, a module, a line `----`, and the module expected after shard. The ranks together, in
// lockstep, must give what the whole program gives, for many lengths.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "core/check.h"
#include "graph/text.h"
#include "ops/ops.h"
#include "passes/evaluate_ranks.h"
#include "passes/shard.h"

namespace tandem {
namespace {

struct Case {
  std::string mesh, before, after;
};

std::filesystem::path folder() { return std::filesystem::path(TANDEM_SHARD_TESTS); }

Case read_case(const std::filesystem::path& path) {
  std::ifstream file(path);
  check(file.good(), "a readable case");
  Case out;
  std::string line;
  std::getline(file, line);
  out.mesh = line.substr(line.find(": ") + 2);
  for (std::string* side = &out.before; std::getline(file, line);) {
    if (line == "----") side = &out.after;
    else *side += line + "\n";
  }
  return out;
}

std::vector<std::string> case_names() {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(folder())) names.push_back(entry.path().stem().string());
  std::ranges::sort(names);
  return names;
}

// The printed module less the data of its sources.
std::string program_text(const Module& module) {
  std::stringstream lines(print(module));
  std::string text;
  for (std::string line; std::getline(lines, line);)
    if (!line.starts_with("source ")) text += line + "\n";
  return text;
}

void expect_same_results(const Graph& whole, const Graph& local, const SymbolValues& symbols) {
  const testing::Tensors inputs = testing::random_inputs(whole, symbols);
  const testing::Tensors wanted = testing::evaluate(whole, inputs, symbols), got = testing::evaluate_ranks(local, inputs, symbols);
  ASSERT_EQ(got.size(), wanted.size());
  for (const auto& [name, tensor] : wanted) {
    ASSERT_EQ(got.at(name).shape(), tensor.shape()) << name;
    for (std::int64_t i = 0; i < tensor.count(); ++i) ASSERT_NEAR(got.at(name).at(i), tensor.at(i), 2e-6) << name << " at " << i;
  }
}

class ShardText : public ::testing::TestWithParam<std::string> {};

TEST_P(ShardText, GivesTheExpectedProgramAndTheSameResults) {
  const Case c = read_case(folder() / (GetParam() + ".txt"));
  const auto whole = parse_module(c.before, all_ops()), local = parse_module(c.before, all_ops());
  testing::fill_sources(*whole);
  testing::fill_sources(*local);
  shard(*local, {.mesh = Mesh::parse(c.mesh)});
  verify(*local);
  EXPECT_EQ(program_text(*local), c.after);
  for (const std::int64_t past : {0, 1, 2, 3, 5, 8})
    for (const std::int64_t rows : {1, 2, 4}) {
      SCOPED_TRACE(fmt::format("P={} S={}", past, rows));
      expect_same_results(whole->main(), local->main(), {{"B", 2}, {"P", past}, {"S", rows}});
    }
}

INSTANTIATE_TEST_SUITE_P(Files, ShardText, ::testing::ValuesIn(case_names()), [](const auto& info) { return info.param; });

}  // namespace
}  // namespace tandem
