#include <gtest/gtest.h>

#include "graph/text.h"
#include "plan/plan.h"
#include "plan/random_plan.h"
#include "tandem/error.h"

namespace tandem {
namespace {

using testing::random_plan;
using testing::small_ops;
using testing::small_plan;

TEST(PlanJson, RandomPlansRoundTrip) {
  int count = 0;
  for (std::uint64_t seed = 0; seed < 800; ++seed) {
    const std::optional<Plan> plan = random_plan(seed);
    if (!plan) continue;
    ++count;
    const std::string text = to_json(*plan);
    std::optional<Plan> back;
    try {
      back = plan_from_json(text, small_ops());
    } catch (const Error& error) {
      FAIL() << "seed " << seed << ": " << error.what() << "\n" << text;
    }
    ASSERT_EQ(to_json(*back), text) << "seed " << seed;
    ASSERT_EQ(digest(*back), digest(*plan)) << "seed " << seed;
  }
  EXPECT_GT(count, 250);
}

TEST(PlanJson, FieldByField) {
  const Plan plan = small_plan();
  const Plan back = plan_from_json(to_json(plan), small_ops());
  EXPECT_EQ(back.mesh, plan.mesh);
  EXPECT_EQ(back.strategy, "tp=2");
  const Program &a = plan.programs[0], &b = back.programs[0];
  EXPECT_EQ(b.profiles, a.profiles);
  ASSERT_EQ(b.steps.size(), 1u);
  EXPECT_EQ(b.steps[0].operands, a.steps[0].operands);
  EXPECT_EQ(b.steps[0].node, "layer/q");
  EXPECT_TRUE(b.steps[0].attributes == a.steps[0].attributes);
  EXPECT_EQ(b.steps[0].microseconds, a.steps[0].microseconds);
  EXPECT_EQ(b.outputs[0].sharding, a.outputs[0].sharding);
  EXPECT_EQ(b.outputs[0].type, a.outputs[0].type);
  EXPECT_EQ(back.weights[1].axes, std::vector<std::string>{"tp"});
  EXPECT_EQ(print(*back.weights[1].recipe), print(*plan.weights[1].recipe));
  EXPECT_TRUE(back.weights[2].frozen);
}

TEST(PlanJson, DigestIsWhatRanksMustAgreeOn) {
  Plan plan = small_plan();
  const std::uint64_t before = digest(plan);
  plan.programs[0].steps[0].microseconds = 99;
  plan.notices.push_back("n");
  plan.programs[0].steps[0].note = "why";
  plan.programs[0].steps[0].starts_early = true;
  EXPECT_EQ(digest(plan), before);
  plan.programs[0].steps[0].kernel = "other";
  EXPECT_NE(digest(plan), before);
}

TEST(PlanJson, SliceNames) {
  const Mesh mesh({{"dp", 2}, {"tp", 2}});
  PlanWeight w;
  w.name = "w";
  EXPECT_EQ(slice_name(w, mesh, 3), "w");
  w.axes = {"tp"};
  EXPECT_EQ(slice_name(w, mesh, 2), "w@tp=0");
  EXPECT_EQ(slice_name(w, mesh, 3), "w@tp=1");
  w.axes = {"dp", "tp"};
  EXPECT_EQ(slice_name(w, mesh, 2), "w@dp=1,tp=0");
}

struct Edit {
  std::string from, to, message;
};

TEST(PlanJson, RefusesWhatDoesNotHold) {
  const std::string text = to_json(small_plan());
  const std::vector<Edit> rows = {
      {"\"format\":1", "\"format\":2", "plan format 2, expected 1"},
      {"\"format\":1", "\"format\":\"1\"", "plan.format: a whole number expected"},
      {"\"format\":1", "\"format\":1.5", "plan.format: a whole number expected"},
      {"\"format\":1", "\"format\":99999999999", "plan.format: 99999999999 is too large"},
      {"\"format\":1,", "", "plan: 'format' is missing"},
      {"\"format\":1,", "\"format\":1,\"extra\":0,", "plan: 13 fields, expected 12"},
      {"\"operands\":[0,1", "\"operands\":[77,1", "program 'main', step 0 (Every \"layer/q\"): value 77 of 7"},
      {"\"operands\":[0,1", "\"operands\":[-2,1", "program 'main', step 0 (Every \"layer/q\"): operand 0 is absent"},
      {"\"operands\":[0,1", "\"operands\":[6,1", "program 'main', step 0 (Every \"layer/q\"): operand 0 is read before it is written"},
      {"\"results\":[6]", "\"results\":[6,6]", "program 'main', step 0 (Every \"layer/q\"): result 'y' is written twice"},
      {"\"results\":[6]", "\"results\":[1]", "program 'main', step 0 (Every \"layer/q\"): result 'norm' is written twice"},
      {"\"results\":[6]", "\"results\":[]", "program 'main', step 0 (Every \"layer/q\"): 0 results, expected 1"},
      {"\"op\":\"Every\"", "\"op\":\"Never\"", "plan.programs[0].steps[0].attributes: this build has no op 'Never'"},
      {"\"word\":\"one\"", "\"word\":\"four\"",
       "plan.programs[0].steps[0].attributes.word: attribute word='four' is not one of one two three"},
      {"\"word\":\"one\"", "\"wort\":\"one\"", "plan.programs[0].steps[0].attributes.wort: Every has no such attribute"},
      {"\"type\":\"f32[B,64]\"", "\"type\":\"f31[B,64]\"", "plan.programs[0].inputs[0].type: 1:1: 'f31' is no element type"},
      {"\"kind\":\"input\"", "\"kind\":\"output\"", "plan.programs[0].values[0].kind: 'output' is not one of input weight temporary"},
      {"\"kind\":\"input\"", "\"kind\":\"temporary\"",
       "program 'main', step 0 (Every \"layer/q\"): operand 0 is read before it is written"},
      {"\"weight\":1", "\"weight\":9", "value 'q': weight 9 of 5"},
      {"\"weight\":1", "\"weight\":0", "value 'q' is f32[32,48], its weight is f16[48]"},
      {"\"first_step\":0", "\"alias_of\":6,\"first_step\":0", "value 'y' (number 6) is an alias of number 6"},
      {"\"first_step\":0", "\"alias_of\":1,\"first_step\":0",
       "program 'main', step 0 (Every \"layer/q\"): result 'y' lies in an input or a weight"},
      {"\"first_step\":0", "\"first_step\":5", "value 'y' lives from step 5 to 0 of 1"},
      {"[\"tp\",2]", "[\"tp\",0]", "plan.mesh: mesh axis 'tp' has size 0"},
      {"[\"tp\",2]", "[\"ep\",2]", "weight 'q': the recipe has the symbol @tp"},
      {"\"axes\":[\"tp\"]", "\"axes\":[]", "weight 'q' depends on axes [], its recipe on [tp]"},
      {"\"shape\":[48]", "\"shape\":[49]", "weight 'norm' is f16[49], its recipe makes f16[48]"},
      {"32*@tp", "32*tp", "weight 'q': the recipe has the symbol tp"},
      {"\"B\":[1,8,64]", "\"B\":[1,80,64]", "symbol 'B' ranges over 1:80:64"},
      {"\"B\":[1,8,64]", "\"B\":[1,8]", "plan.programs[0].profiles[0].B: min, opt and max expected"},
      {"\"value\":6", "\"value\":7", "program 'main', output: value 7 of 7"},
      {"partial(tp:sum)", "partial(tp:sun)", "plan.programs[0].outputs[0].sharding: 1:14: 'sun' is no reduction"},
      {"partial(tp:sum)", "partial(cp:sum)", "'embedding': sharding"},
  };
  for (const Edit& row : rows) {
    std::string changed = text;
    ASSERT_NE(changed.find(row.from), std::string::npos) << row.from << "\n" << text;
    changed.replace(changed.find(row.from), row.from.size(), row.to);
    try {
      plan_from_json(changed, small_ops());
      ADD_FAILURE() << "accepted " << row.to;
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::invalid_engine) << row.to;
      EXPECT_EQ(error.message().substr(0, row.message.size()), row.message) << row.to;
    }
  }
}

TEST(PlanJson, RefusesWhatIsNoPlan) {
  for (const std::string& text :
       {std::string(), std::string("null"), std::string("[]"), std::string("{"), std::string("{\"format\":1}"), std::string(100000, '['),
        "{\"format\":" + std::string(100, '[') + std::string(100, ']') + "}", std::string("\xff\xfe")}) {
    try {
      plan_from_json(text, small_ops());
      ADD_FAILURE() << "accepted";
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::invalid_engine) << text.substr(0, 50);
    }
  }
}

TEST(PlanJson, NamesThatAreNotUtf8AreToldAtOnce) {
  Plan plan = small_plan();
  plan.notices.push_back("\xff");
  EXPECT_THROW(to_json(plan), Error);
}

}  // namespace
}  // namespace tandem
