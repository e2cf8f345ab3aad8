// Symbols and memory of bound shapes.
#include <gtest/gtest.h>

#include <map>
#include <random>

#include "core/check.h"
#include "runtime/memory.h"
#include "runtime/symbols.h"

namespace tandem {
namespace {

std::string message(const std::function<void()>& call) {
  try {
    call();
  } catch (const Error& error) {
    return error.what();
  }
  return {};
}

Program two_inputs() {
  Program program;
  program.inputs = {{"a", 0, {DType::f32, {Dim::symbol("B"), Dim::symbol("S")}}, {}},
                    {"b", 1, {DType::f32, {Dim::symbol("T"), Dim::symbol("S") + Dim(1), 8}}, {}}};
  program.constraints = {{Dim::symbol("B"), Dim::symbol("T"), "Add \"sum\""}};
  program.profiles = {{{"B", {1, 2, 4}}, {"S", {0, 8, 16}}}, {{"B", {8, 8, 8}}, {"S", {0, 8, 16}}}};
  return program;
}

TEST(Symbols, FollowFromShapes) {
  const SymbolValues symbols = bind_symbols(two_inputs(), {{2, 5}, {2, 6, 8}});
  EXPECT_EQ(symbols, (SymbolValues{{"B", 2}, {"S", 5}, {"T", 2}}));
  EXPECT_EQ(bind_symbols(two_inputs(), {{8, 0}, {8, 1, 8}}).at("S"), 0);
}

TEST(Symbols, ErrorsNameInputNodeAndBothValues) {
  const auto bind = [](Shape a, Shape b) { return message([&] { bind_symbols(two_inputs(), {a, b}); }); };
  const std::string rank = bind({2}, {2, 6, 8}), number = bind({2, 5}, {2, 6, 9}), expression = bind({2, 5}, {2, 7, 8});
  EXPECT_NE(rank.find("'a'"), std::string::npos) << rank;
  EXPECT_NE(number.find("extent 9"), std::string::npos) << number;
  EXPECT_NE(number.find("expected 8"), std::string::npos) << number;
  EXPECT_NE(expression.find("'b'"), std::string::npos) << expression;
  const std::string constraint = bind({2, 5}, {3, 6, 8});
  EXPECT_NE(constraint.find("Add \"sum\""), std::string::npos) << constraint;
  EXPECT_NE(constraint.find("B = 2"), std::string::npos) << constraint;
  EXPECT_NE(constraint.find("T = 3"), std::string::npos) << constraint;
}

TEST(Symbols, FitAProfile) {
  Plan plan;
  plan.programs = {two_inputs(), two_inputs(), two_inputs()};
  plan.programs[0].profiles = {{{"B", {1, 2, 4}}, {"S", {0, 8, 16}}}};
  plan.programs[1].profiles = {{{"B", {2, 8, 8}}, {"S", {0, 8, 16}}}};
  plan.programs[2].name = "another";
  plan.programs[2].profiles = {{{"B", {1, 100, 100}}, {"S", {0, 8, 16}}}};
  ASSERT_EQ(plan.profiles(), 2u);
  const auto refusal = [&](std::int64_t b, int wanted) { return message([&] { fitting_profile(plan, {{"B", b}, {"S", 5}}, wanted); }); };
  for (const auto& [b, profile] : std::map<std::int64_t, std::size_t>{{1, 0}, {2, 0}, {3, 0}, {4, 0}, {5, 1}, {8, 1}})
    EXPECT_EQ(fitting_profile(plan, {{"B", b}, {"S", 5}}), profile) << b;  // of several the nearer one
  EXPECT_EQ(fitting_profile(plan, {{"B", 4}, {"S", 5}}, 0), 0u);
  EXPECT_EQ(refusal(5, 0),
            "these input shapes do not fit optimization profile 0: input 'a', dimension 0: B = 5 is outside 1 … 4; profile 1 would");
  EXPECT_NE(refusal(9, 1).find("no other would"), std::string::npos);
  EXPECT_NE(refusal(9, -1).find("profile 1: input 'a', dimension 0: B = 9 is outside 2 … 8"), std::string::npos) << refusal(9, -1);
  plan.programs.resize(1);
  EXPECT_EQ(refusal(5, -1), "these input shapes fit no profile: input 'a', dimension 0: B = 5 is outside 1 … 4");
}

// Values that live at the same time never share a byte; the arena is no larger than all of them together.
TEST(Memory, LivingValuesDoNotOverlap) {
  std::mt19937 random(7);
  for (int round = 0; round < 50; ++round) {
    Program program;
    std::size_t sum = 0;
    for (int v = 0; v < 40; ++v) {
      PlanValue value;
      value.type = {DType::u8, {static_cast<std::int64_t>(random() % 1000)}};
      value.first_step = static_cast<int>(random() % 30);
      value.last_step = value.first_step + static_cast<int>(random() % 6);
      sum += (static_cast<std::size_t>(value.type.dims[0].constant()) + kAlignment - 1) / kAlignment * kAlignment;
      program.values.push_back(value);
    }
    const MemoryPlan plan = plan_memory(program, {}, std::vector<bool>(40, false));
    EXPECT_LE(plan.arena_bytes, sum);
    for (std::size_t a = 0; a < 40; ++a) {
      EXPECT_EQ(plan.offset[a] % kAlignment, 0u);
      EXPECT_LE(plan.offset[a] + plan.size[a], plan.arena_bytes);
      for (std::size_t b = 0; b < a; ++b) {
        const PlanValue &x = program.values[a], &y = program.values[b];
        if (x.first_step > y.last_step || y.first_step > x.last_step || plan.size[a] == 0 || plan.size[b] == 0) continue;
        EXPECT_TRUE(plan.offset[a] + plan.size[a] <= plan.offset[b] || plan.offset[b] + plan.size[b] <= plan.offset[a])
            << a << " and " << b;
      }
    }
  }
}

TEST(Memory, AnAliasOfItselfIsRefused) {
  Program program;
  program.values.resize(2);
  program.values[0].alias_of = 1;
  program.values[1].alias_of = 0;
  EXPECT_NE(message([&] { alias_roots(program); }), "");
}

}  // namespace
}  // namespace tandem
