// Dependent launches: a plan in which a kernel might read what is being written is refused, and no other.
#include <gtest/gtest.h>

#include <algorithm>
#include <map>

#include "core/check.h"
#include "plan/random_plan.h"

namespace tandem {
namespace {

using testing::Random;
using testing::small_ops;

// Steps over one input, one weight and what steps before wrote, some of it in place, with any edges and resident operands.
Plan plan_of(Random& random) {
  Plan plan;
  plan.weights.push_back({"w", DType::f32, {4}, Recipe::from_source("w", DType::f32, {4})});
  Program p{.name = "main"};
  const Type type{DType::f32, {4}};
  p.values.push_back({"x", PlanValue::Kind::input, type});
  p.values.push_back({"w", PlanValue::Kind::weight, type, 0});
  p.inputs.push_back({"x", 0, type});
  const OpDef& every = *small_ops().find("Every");
  const int steps = 2 + random.below(6);
  for (int s = 0; s < steps; ++s) {
    Step step{"plain", "Every", "", Attributes(&every.fields)};
    step.attributes.set("shape", std::vector<Dim>{4});
    for (int n = 1 + random.below(3); n > 0; --n) step.operands.push_back(random.below(static_cast<int>(p.values.size())));
    step.starts_early = random.chance(70);
    for (int n = 0; step.starts_early && n < static_cast<int>(step.operands.size()); ++n)
      if (random.chance(30)) step.resident.push_back(n);
    const int place = step.operands[0];
    const auto result = static_cast<int>(p.values.size());
    p.values.push_back({fmt::format("t{}", s), PlanValue::Kind::temporary, type});
    if (place >= 2 && random.chance(40)) p.values.back().alias_of = place;
    step.results.push_back(result);
    p.steps.push_back(std::move(step));
  }
  p.outputs.push_back({"y", static_cast<int>(p.values.size()) - 1, type});
  plan.programs.push_back(std::move(p));
  return plan;
}

// The moments of a step, in the order in which each comes after the one before.
enum Moment { kBegins, kReadsEarly, kWaited, kWrites, kEnds, kMoments };

// order[a][b]: moment a of some step is over before moment b of another, whatever the GPU does.
std::vector<std::vector<bool>> order_of(const Program& p) {
  const std::size_t count = p.steps.size() * kMoments;
  std::vector<std::vector<bool>> before(count, std::vector<bool>(count));
  const auto at = [](std::size_t step, Moment m) { return step * kMoments + m; };
  for (std::size_t s = 0; s < p.steps.size(); ++s) {
    for (int m = 1; m < kMoments; ++m) before[at(s, static_cast<Moment>(m - 1))][at(s, static_cast<Moment>(m))] = true;
    if (s == 0) continue;
    before[at(s - 1, kBegins)][at(s, kBegins)] = true;  // what starts early does so once the step before lets it, which is at its beginning
    before[at(s - 1, kEnds)][at(s, p.steps[s].starts_early ? kWaited : kBegins)] = true;
  }
  for (std::size_t k = 0; k < count; ++k)
    for (std::size_t i = 0; i < count; ++i)
      for (std::size_t j = 0; before[i][k] && j < count; ++j) before[i][j] = before[i][j] || before[k][j];
  return before;
}

bool is_right(const Program& p) {
  if (p.steps[0].starts_early) return false;
  const auto before = order_of(p);
  const auto memory_of = [&](int v) {
    while (p.values[static_cast<std::size_t>(v)].alias_of >= 0) v = p.values[static_cast<std::size_t>(v)].alias_of;
    return v;
  };
  for (std::size_t s = 0; s < p.steps.size(); ++s)
    for (const int position : p.steps[s].resident)
      for (std::size_t writer = 0; writer < p.steps.size(); ++writer) {
        if (memory_of(p.steps[writer].results[0]) != memory_of(p.steps[s].operands[static_cast<std::size_t>(position)])) continue;
        const std::size_t reads = s * kMoments + kReadsEarly, writes = writer * kMoments + kWrites;
        if (writer == s) return false;  // its blocks do not wait for each other
        if (!before[writes][reads] && !before[reads][writes]) return false;
      }
  return true;
}

TEST(Edges, AnEarlyReadOfWhatMayBeWrittenIsRefusedAndNothingElse) {
  int accepted = 0, refused = 0;
  for (std::uint64_t seed = 0; seed < 6000; ++seed) {
    Random random(seed);
    const Plan plan = plan_of(random);
    std::string why;
    try {
      plan_from_json(to_json(plan), small_ops());
    } catch (const Error& error) {
      ASSERT_EQ(error.code(), ErrorCode::invalid_engine) << error.what();
      why = error.message();
    }
    ASSERT_EQ(why.empty(), is_right(plan.programs[0])) << "seed " << seed << ": " << why << "\n" << to_json(plan);
    const bool residents = std::ranges::any_of(plan.programs[0].steps, [](const Step& s) { return !s.resident.empty(); });
    if (!why.empty()) ++refused;
    else if (residents) ++accepted;
  }
  EXPECT_GT(accepted, 200);
  EXPECT_GT(refused, 200);
}

TEST(Edges, RefusesWhatMakesNoSense) {
  const std::vector<std::pair<void (*)(Program&), std::string>> rows = {
      {[](Program& p) { p.steps[1].starts_early = false; }, "it has resident operands and does not start early"},
      {[](Program& p) { p.steps[1].resident = {1}; }, "operand 1 is resident, and absent"},
      {[](Program& p) { p.steps[1].resident = {-1}; }, "operand -1 is resident, and absent"},
      {[](Program& p) { p.steps[0].starts_early = true; }, "nothing is before it"},
  };
  Random random(1);
  Plan plan = plan_of(random);
  Program& program = plan.programs[0];
  for (Step& step : program.steps) step.starts_early = false, step.resident.clear();
  program.steps[1].starts_early = true;
  program.steps[1].operands = {1};
  program.steps[1].resident = {0};
  plan_from_json(to_json(plan), small_ops());
  for (const auto& [change, message] : rows) {
    Plan wrong = plan;
    change(wrong.programs[0]);
    try {
      plan_from_json(to_json(wrong), small_ops());
      ADD_FAILURE() << message;
    } catch (const Error& error) {
      EXPECT_NE(error.message().find(message), std::string::npos) << error.message();
    }
  }
}

}  // namespace
}  // namespace tandem
