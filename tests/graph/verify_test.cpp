#include <gtest/gtest.h>

#include "graph/random_module.h"
#include "graph/text.h"
#include "tandem/error.h"

namespace tandem {
namespace {

using testing::random_module;
using testing::small_ops;

// What verify says of a module; empty if it accepts.
std::string complaint(const Module& module) {
  try {
    verify(module);
    return "";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::invalid_model) << error.what();
    return error.what();
  }
}

TEST(Verify, InferredModulesPassBeforeAndAfterText) {
  int passed = 0;
  for (std::uint64_t seed = 0; seed < 600; ++seed) {
    auto module = random_module(seed, small_ops(), true);
    const std::string why = complaint(*module);
    // Random extents may be negative constants, and random outputs may share a name.
    if (!why.empty()) {
      ASSERT_TRUE(why.find("negative extent") != std::string::npos || why.find("two outputs") != std::string::npos)
          << "seed " << seed << ": " << why;
      continue;
    }
    ++passed;
    EXPECT_EQ(complaint(*parse_module(print(*module), small_ops())), "") << "seed " << seed;
  }
  EXPECT_GT(passed, 200);
}

struct Row {
  std::string body;
  std::string message;
};

TEST(Verify, NamesTheNode) {
  const std::vector<Row> rows = {
      {"%y: f32[2] = Same(%x) \"a/b\"", "[Same \"a/b\"] %y is f32[2], inference says f32[1]"},
      {"%y: f32[1] = Same()", "[Same \"y\"] 0 operands, expected 1 to 1"},
      {"%y: f32[1] = Same(_)", "[Same \"y\"] operand 0 is absent"},
      {"%y: f32[1], %z: f32[1] = Same(%x)", "[Same \"y\"] 2 results, inference says 1"},
      {"%y: f32[1] = Every() {count=9}", "[Every \"y\"] count 9 is outside 0 to 8"},
      {"%y: f32[1]{(1):ep} = Same(%x)", "[Same \"y\"] %y: sharding {(1):ep} names axis 'ep', which the mesh (tp=2) lacks"},
      {"%y: f32[1]{(1):tp;partial(tp:sum)} = Same(%x)", "[Same \"y\"] %y: sharding {(1):tp;partial(tp:sum)} names axis 'tp' twice"},
      {"%y: f32[1]{_,_} = Same(%x)", "[Same \"y\"] %y: sharding {_,_} has 2 dimensions, expected 1"},
      {"%y: f32[1] = Body(%x) region { %z: f32[3] = Same(%^x) \"inner\" }", "[Same \"inner\"] %z is f32[3], inference says f32[1]"},
      {"return %x as \"o\", %x as \"o\"", "two outputs of main are named \"o\""},
      {"weight %w: f32[5]", "weight %w is f32[5], its recipe makes f32[2]"},
      {"input %n: f32[0-3]", "%n has a negative extent: f32[-3]"},
  };
  for (const Row& row : rows) {
    const auto module = parse_module(
        "module mesh(tp=2) weight %w: f32[2] = source(\"w\", f32[2]) program main { input %x: f32[1] " + row.body + " }", small_ops());
    EXPECT_EQ(complaint(*module), row.message) << row.body;
  }
}

TEST(Verify, ProfilesAndPrograms) {
  EXPECT_EQ(complaint(*parse_module("module program main symbols(B=4:2:8) { }", small_ops())),
            "symbol 'B' ranges over 4:2:8, expected 0 ≤ min ≤ opt ≤ max");
  EXPECT_EQ(complaint(*parse_module("module program a { } program a { }", small_ops())), "two programs are named 'a'");
}

TEST(Verify, OrderAndUses) {
  auto module = parse_module("module program main { input %x: f32[1] %y: f32[1] = Same(%x) %z: f32[1] = Same(%y) return %z }", small_ops());
  Graph& graph = module->main();
  EXPECT_EQ(complaint(*module), "");
  const std::vector<Node*> nodes = graph.node_list();
  graph.move_before(*nodes[1], *nodes[0]);
  EXPECT_EQ(complaint(*module), "[Same \"z\"] operand 0 is not defined before its use");
  graph.move_before(*nodes[0], *nodes[1]);
  EXPECT_EQ(complaint(*module), "");
  nodes[1]->attributes = Attributes(&small_ops().find("Constant")->fields);
  EXPECT_EQ(complaint(*module), "[Same \"z\"] 1 attributes, expected 0");
}

TEST(Verify, AValueOfARegionIsNotSeenOutside) {
  auto module =
      parse_module("module program main { input %x: f32[1] %y: f32[1] = Body(%x) region { %q: f32[1] = Same(%^x) } %z: f32[1] = Same(%x) }",
                   small_ops());
  const std::vector<Node*> nodes = module->main().node_list();
  Value* inner = nodes[0]->regions()[0]->nodes().front()->result();
  nodes[1]->set_operand(0, inner);
  EXPECT_NE(complaint(*module), "");
  nodes[1]->set_operand(0, module->main().inputs()[0].get());
  EXPECT_EQ(complaint(*module), "");
  module->main().outputs().push_back({"o", inner});
  EXPECT_EQ(complaint(*module), "output \"o\" of main is no value of the program");
}

}  // namespace
}  // namespace tandem
