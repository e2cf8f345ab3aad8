// Random programs, meshes and placements: what the ranks give together is what the whole program gives.
#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <map>

#include "core/check.h"
#include "graph/text.h"
#include "passes/evaluate_ranks.h"
#include "passes/pipeline.h"
#include "passes/random_program.h"

namespace tandem {
namespace {

void expect_near(const testing::Tensors& got, const testing::Tensors& wanted) {
  ASSERT_EQ(got.size(), wanted.size());
  for (const auto& [name, tensor] : wanted) {
    ASSERT_EQ(got.at(name).shape(), tensor.shape()) << name;
    for (std::int64_t i = 0; i < tensor.count(); ++i)
      ASSERT_NEAR(got.at(name).at(i), tensor.at(i), 2e-5 * std::max(1.0, std::abs(tensor.at(i)))) << name << " at " << i;
  }
}

using Coverage = std::map<std::string, int>;

void count_ops(const Graph& graph, Coverage& coverage) {
  for (const auto& node : graph.nodes()) {
    if (node->op().collective || node->is("ShardSlice")) ++coverage[std::string(node->op().name)];
    if (node->is("Attention") && node->attributes.integer("num_ranks") > 1) ++coverage[node->attributes.text("split")];
  }
}

// Whether it could be sharded.
bool run_one(std::uint64_t seed, Coverage& coverage) {
  testing::Dice dice(seed);
  const auto program = testing::random_program(dice);
  Module& module = *program;
  const ShardOptions options = testing::random_options(dice, module.main());
  const SymbolValues symbols = {{"B", 1 + dice.pick(4)}, {"S", 1 + dice.pick(7)}, {"P", dice.pick(8)}};
  const testing::Tensors inputs = testing::random_inputs(module.main(), symbols);
  const testing::Tensors wanted = testing::evaluate(module.main(), inputs, symbols);
  SCOPED_TRACE(fmt::format("seed {} mesh {}", seed, options.mesh.to_string()));
  try {
    if (!shard(module, options)) return false;
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::unsupported) << error.message();
    return false;
  }
  verify(module);
  count_ops(module.main(), coverage);
  try {
    expect_near(testing::evaluate_ranks(module.main(), inputs, symbols), wanted);
    PipelineOptions fuse;
    fuse.phases = {Phase::fuse};
    run_pipeline(module, fuse);
    for (const auto& node : module.main().nodes()) coverage["all-reduce with norm"] += node->op().name.starts_with("AllReduceAdd") ? 1 : 0;
    expect_near(testing::evaluate_ranks(module.main(), inputs, symbols), wanted);
  } catch (const Error& error) {
    ADD_FAILURE() << error.message();
  }
  if (::testing::Test::HasFailure()) std::printf("%s\n", print(module).c_str());
  return true;
}

TEST(ShardRandom, RanksTogetherGiveWhatTheWholeProgramGives) {
  const char* given = std::getenv("TANDEM_SEED");
  const std::uint64_t first = given ? std::stoull(given) : 1, count = given ? 1 : 3000;
  Coverage coverage;
  int sharded = 0;
  for (std::uint64_t seed = first; seed < first + count && !HasFailure(); ++seed) sharded += run_one(seed, coverage);
  std::printf("%d of %d programs were sharded, seeds %d to %d\n", sharded, static_cast<int>(count), static_cast<int>(first),
              static_cast<int>(first + count - 1));
  for (const auto& [op, count_of] : coverage) std::printf("  %s %d\n", op.c_str(), count_of);
  if (given) return;
  EXPECT_GE(sharded, 1500);
  for (const char* op :
       {"AllReduce", "AllGather", "ReduceScatter", "AllToAll", "ShardSlice", "Append", "qkv", "kv", "all-reduce with norm"})
    EXPECT_GE(coverage[op], 20) << op;
}

}  // namespace
}  // namespace tandem
