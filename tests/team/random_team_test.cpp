// Random programs, meshes and placements on teams of threads and real kernels, against the plain evaluation of the whole.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>

#include "build/build.h"
#include "core/check.h"
#include "graph/text.h"
#include "passes/pipeline.h"
#include "passes/random_program.h"
#include "team/team.h"
#include "team/weights.h"

namespace tandem {
namespace {

void expect_near(const TeamTensors& got, const testing::Tensors& wanted) {
  ASSERT_EQ(got.size(), wanted.size());
  for (const auto& [name, tensor] : wanted) {
    const Tensor& mine = got.at(name).at(0);
    ASSERT_EQ(mine.shape(), tensor.shape()) << name;
    double largest = 1;
    for (const double v : tensor.to_doubles()) largest = std::max(largest, std::abs(v));
    for (std::int64_t i = 0; i < tensor.count(); ++i) ASSERT_NEAR(mine.at(i), tensor.at(i), 1e-4 * largest) << name << " at " << i;
  }
}

bool run_one(std::uint64_t seed) {
  testing::Dice dice(seed);
  const std::shared_ptr<Module> module = testing::random_program(dice);
  const ShardOptions options = testing::random_options(dice, module->main());
  std::vector<std::pair<testing::Tensors, testing::Tensors>> cases;
  module->main().profiles = {{{"B", {1, 2, 8}}, {"S", {1, 4, 8}}, {"P", {0, 4, 8}}}};
  for (int i = 0; i < 2; ++i) {
    const SymbolValues symbols = {{"B", 1 + dice.pick(4)}, {"S", 1 + dice.pick(7)}, {"P", dice.pick(8)}};
    const testing::Tensors inputs = testing::random_inputs(module->main(), symbols);
    cases.emplace_back(inputs, testing::evaluate(module->main(), inputs, symbols));
  }
  SCOPED_TRACE(fmt::format("seed {} mesh {}", seed, options.mesh.to_string()));
  try {
    run_pipeline(*module, {.pass = {options.mesh, options.strategies, options.io}});
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::unsupported) << error.what();
    return false;
  }
  try {
    const auto plan = std::make_shared<const Plan>(build_plan(*module));
    Team team({plan}, weights_of(module, plan->mesh), {});
    for (const auto& [inputs, wanted] : cases) {
      TeamTensors given;
      for (const auto& [name, tensor] : inputs) given[name] = {tensor};
      expect_near(team.run(given), wanted);
    }
  } catch (const Error& error) {
    ADD_FAILURE() << error.what();
  }
  if (::testing::Test::HasFailure()) std::printf("%s\n", print(*module).c_str());
  return true;
}

TEST(TeamRandom, TeamsGiveWhatTheWholeProgramGives) {
  const char* given = std::getenv("TANDEM_SEED");
  const std::uint64_t first = given ? std::stoull(given) : 5001, count = given ? 1 : 300;
  int sharded = 0;
  for (std::uint64_t seed = first; seed < first + count && !HasFailure(); ++seed) sharded += run_one(seed);
  std::printf("%d of %d programs were sharded, seeds %d to %d\n", sharded, static_cast<int>(count), static_cast<int>(first),
              static_cast<int>(first + count - 1));
  EXPECT_GE(sharded, given ? 0 : 100);
}

}  // namespace
}  // namespace tandem
