// Runs every shard/NAME.txt: a line `mesh: …`, a module, a line `----`, and the module expected after shard. The ranks together, in
// lockstep, must give what the whole program gives, for many lengths.
#include <gtest/gtest.h>

#include <fmt/format.h>

#include "graph/text.h"
#include "ops/ops.h"
#include "passes/evaluate_ranks.h"
#include "passes/shard.h"
#include "passes/text_case.h"

namespace tandem {
namespace {

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
  const testing::TextCase c = testing::read_case(TANDEM_SHARD_TESTS, GetParam());
  const auto whole = parse_module(c.before, all_ops()), local = parse_module(c.before, all_ops());
  testing::fill_sources(*whole);
  testing::fill_sources(*local);
  shard(*local, {.mesh = Mesh::parse(c.given)});
  verify(*local);
  EXPECT_EQ(testing::program_text(*local), c.after);
  for (const std::int64_t past : {0, 1, 2, 3, 5, 8})
    for (const std::int64_t rows : {1, 2, 4}) {
      SCOPED_TRACE(fmt::format("P={} S={}", past, rows));
      expect_same_results(whole->main(), local->main(), {{"B", 2}, {"P", past}, {"S", rows}});
    }
}

INSTANTIATE_TEST_SUITE_P(Files, ShardText, ::testing::ValuesIn(testing::case_names(TANDEM_SHARD_TESTS)),
                         [](const auto& info) { return info.param; });

}  // namespace
}  // namespace tandem
