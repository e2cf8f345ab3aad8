#include "graph/text.h"

#include <gtest/gtest.h>

#include "graph/random_module.h"
#include "graph/round_trip.h"

namespace tandem {
namespace {

using testing::expect_round_trips;
using testing::small_ops;

TEST(GraphText, RandomModulesRoundTrip) { expect_round_trips(small_ops(), 1500); }

TEST(GraphText, PrintsWhatItSays) {
  const std::string text =
      "module mesh(dp=1,tp=2)\n"
      "notice \"kv heads are \\\"repeated\\\"\"\n"
      "weight %w: f32[384,384] = slice(transpose(source(\"q.weight\", f32[768,384]), [1,0]), 1, 384*@tp, 384) frozen\n"
      "program main symbols(B=1:8:64, S=1:128:512) symbols(B=1:1:1, S=1:16:32) {\n"
      "  input %input_ids: i64[B,S]\n"
      "  weight %w: f32[384,384]{_,(768):tp}\n"
      "  require B*S == T \"Reshape \\\"x\\\"\"\n"
      "  %h: f32[B,S,384]{_,(S):dp,(3).(128):tp;partial(tp:sum)} = Every(%w, _, %input_ids) {flag=true, word=\"two\"} "
      "\"embeddings/Gather\"\n"
      "  %y: f32[], %z: f32[] = Every() {count=2} note \"why\"\n"
      "  %b: f32[] = Body(%y) region {\n"
      "    input %y: f32[]\n"
      "    %c: f32[] = Same(%^y)\n"
      "    return %c\n"
      "  } region {\n"
      "  }\n"
      "  = Sink(%\"odd name\")\n"
      "  return %h as \"last_hidden_state\"\n"
      "}\n";
  std::string good = text;
  good.replace(good.find("%\"odd name\""), 11, "%z");
  EXPECT_EQ(print(*parse_module(good, small_ops())), good);
  EXPECT_THROW(parse_module(text, small_ops()), Error);
}

TEST(GraphText, TypesAreInferredWhereLeftOut) {
  const auto module = parse_module(
      "module weight %w: f32[2] = source(\"w\", f32[2])\n"
      "program main { input %x: f32[B,4] %y = Same(%x) %z = Same(%w)  # a comment\n return %y, %z as \"out\" }",
      small_ops());
  EXPECT_EQ(module->main().outputs()[0].value->type.to_string(), "f32[B,4]");
  EXPECT_EQ(module->main().outputs()[1].value->type.to_string(), "f32[2]");
  EXPECT_EQ(module->main().weight_values().size(), 1u);
}

TEST(GraphText, ARegionSeesOuterValuesByNameAndByCaret) {
  const auto module = parse_module(
      "module program main { input %x: f32[1] %y: f32[1] = Body(%x) region { %x: f32[1] = Same(%x) %u: f32[1] = Same(%x) %v: f32[1] = "
      "Same(%^x) } }",
      small_ops());
  const Node& body = *module->main().nodes().front();
  std::vector<const Node*> inner;
  for (const auto& n : body.regions()[0]->nodes()) inner.push_back(n.get());
  const Value* outer = module->main().inputs()[0].get();
  EXPECT_EQ(inner[0]->operand(0), outer);
  EXPECT_EQ(inner[1]->operand(0), inner[0]->result());
  EXPECT_EQ(inner[2]->operand(0), outer);
}

struct Bad {
  std::string text;
  std::string message;  // beginning of it
};

TEST(GraphText, ErrorsSayWhereAndWhat) {
  const std::vector<Bad> rows = {
      {"", "1:1: 'module' expected, found the end"},
      {"module\nprogramme", "2:1: notice, source, weight or program expected, found \"programme\""},
      {"module mesh(tp=0)", "1:16: mesh axis 'tp' has size 0"},
      {"module mesh(tp=2,tp=2)", "1:12: mesh axis 'tp' is given twice"},
      {"module program m {\n  input %x: f33[1]", "2:13: 'f33' is no element type"},
      {"module program m {\n  input %x: f32[1\n}", "3:1: ']' expected, found \"}\""},
      {"module program m { input %x: f32[1/*2] }", "1:34: dimension '1/*2'"},
      {"module program m { input %x: f32[1] input %x: f32[1] }", "1:43: %x is defined twice"},
      {"module program m { %y: f32[1] = Nope() }", "1:33: there is no op 'Nope'"},
      {"module program m { %y: f32[1] = Same(%x) }", "1:38: %x is not defined before its use"},
      {"module program m { %y: f32[1] = Body(_) region { = Sink(%y) } }", "1:57: %y is not defined before its use"},
      {"module program m { %y: f32[1] = Every() {nope=1} }", "1:42: Every has no attribute 'nope'"},
      {"module program m { %y: f32[1] = Every() {word=\"four\"} }", "1:42: attribute word='four' is not one of"},
      {"module program m { %y: f32[1] = Every() {flag=7} }", "1:47: true or false expected"},
      {"module program m { %y: f32[1] = Every() {data=u8[1](256)} }", "1:53: 256 does not fit u8"},
      {"module program m { %y: f32[1] = Every() {data=u8[3](1, 2)} }", "1:53: 2 elements, expected 3"},
      {"module program m { %y: f32[1] = Every() {data=f32[1000000000000](0)} }", "1:66: 1 elements, expected 1000000000000"},
      {"module program m { %y: f32[1] = Every() {text=\"a", "1:47: the string does not end"},
      {"module program m { %y: f32[1] = Every() {text=\"\\q\"} }", "1:49: unknown escape"},
      {"module program m { %y, %z = Same(_) }", "1:20: [Same \"\"] operand 0 is absent"},
      {"module weight %w: f32[3] = slice(source(\"a\", f32[2]), 1, 0, 3)", "1:55: axis 1 is outside rank 1"},
      {"module weight %w: f32[3] = source(\"a\", f32[2])", "1:15: the recipe makes f32[2]"},
      {"module weight %w: f32[2] = transpose(source(\"a\", f32[2]), [1])", "1:59: [1] is no permutation of 1 axes"},
      {"module weight %w: f32[2] = concat(0, source(\"a\", f32[2]), source(\"b\", f16[2]))", "1:59: a part differs"},
      {"module weight %w: f32[2] = melt(source(\"a\", f32[2]))", "1:28: 'melt' is no recipe"},
      {"module weight %w: f32[9000000000,9000000000] = source(\"a\", f32[1])", "1:22: 9000000000 * 9000000000 overflows"},
      {"module program m { return %x }", "1:27: %x is not defined before its use"},
  };
  for (const Bad& row : rows) {
    try {
      parse_module(row.text, small_ops());
      ADD_FAILURE() << "accepted: " << row.text;
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::invalid_model) << row.text;
      EXPECT_EQ(error.message().substr(0, row.message.size()), row.message) << row.text;
    }
  }
}

TEST(GraphText, DepthIsBounded) {
  std::string recipe = "source(\"a\", f32[2])";
  std::string regions = "module program m ";
  for (int i = 0; i < 100000; ++i) {
    regions += "{ %y: f32[1] = Body(_) region ";
  }
  for (int i = 0; i < 2000; ++i) recipe = "cast(" + recipe + ", f16)";
  for (const std::string& text :
       {regions, "module weight %w: f16[2] = " + recipe, "module program m { input %x: f32[" + std::string(100000, '(')}) {
    try {
      parse_module(text, small_ops());
      ADD_FAILURE() << "accepted";
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::invalid_model);
      EXPECT_NE(error.message().find("nested too deeply"), std::string::npos) << error.message().substr(0, 200);
    }
  }
}

// What differs is found, whatever it is.
TEST(GraphText, SameSeesEveryDifference) {
  const std::string text =
      "module mesh(tp=2)\nnotice \"n\"\nweight %w: f32[2] = source(\"w\", f32[2])\n"
      "program main symbols(B=1:2:3) {\n  input %x: f32[B]{(B):tp}\n  weight %w: f32[2]\n  require B == C \"r\"\n"
      "  %y: f32[B] = Every(%x, _) {real=2} \"node\" note \"because\" region {\n    %q: f32[B] = Same(%^x)\n    return %q\n  }\n"
      "  return %y as \"o\"\n}\n";
  const auto original = parse_module(text, small_ops());
  const std::vector<std::pair<std::string, std::string>> edits = {{"tp=2", "tp=3"},
                                                                  {"\"n\"", "\"m\""},
                                                                  {"source(\"w\"", "source(\"v\""},
                                                                  {"B=1:2:3", "B=1:2:4"},
                                                                  {"f32[B]{(B):tp}", "f32[B]"},
                                                                  {"(B):tp", "(2*B):tp"},
                                                                  {"C \"r\"", "D \"r\""},
                                                                  {"real=2", "real=2.5"},
                                                                  {"\"node\"", "\"nod\""},
                                                                  {"because", "why"},
                                                                  {"Every(%x, _)", "Every(_, %x)"},
                                                                  {"%^x", "%^w"},
                                                                  {"as \"o\"", "as \"p\""},
                                                                  {"program main", "program other"}};
  for (const auto& [from, to] : edits) {
    std::string changed = text;
    changed.replace(changed.find(from), from.size(), to);
    std::string why;
    EXPECT_FALSE(same(*original, *parse_module(changed, small_ops()), &why)) << from << " → " << to;
    EXPECT_FALSE(why.empty());
  }
}

}  // namespace
}  // namespace tandem
