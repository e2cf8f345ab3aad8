// What shard refuses, and that the module is as it was then.
#include <gtest/gtest.h>

#include "core/check.h"
#include "graph/text.h"
#include "ops/ops.h"
#include "passes/evaluate.h"
#include "passes/shard.h"

namespace tandem {
namespace {

constexpr const char* kAttention = R"(module
program main symbols(B=1:2:8, S=1:4:64) {
  input %q: f32[B,6,S,8]
  input %k: f32[B,6,S,8]
  input %v: f32[B,6,S,8]
  %o = Attention(%q, %k, %v) "attn"
  return %o as "o"
}
)";

constexpr const char* kProduct = R"(module
weight %w: f32[8,5] = source("w", f32[8,5])
program main symbols(B=1:2:8) {
  input %x: f32[B,8]
  weight %w: f32[8,5]
  %y = MatMul(%x, %w)
  return %y as "y"
}
)";

void expect_refused(const char* text, const ShardOptions& options, ErrorCode code, const std::string& words, const OpSet& ops = all_ops()) {
  const auto module = parse_module(text, ops);
  testing::fill_sources(*module);
  const std::string before = print(*module);
  try {
    shard(*module, options);
    ADD_FAILURE() << "accepted, expected: " << words;
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), code) << error.what();
    EXPECT_NE(std::string(error.what()).find(words), std::string::npos) << error.what() << "\nexpected: " << words;
  }
  EXPECT_EQ(print(*module), before);
}

TEST(ShardRefusal, HeadsThatDoNotDivideAreNamed) {
  expect_refused(kAttention, {.mesh = Mesh::parse("tp=4")}, ErrorCode::unsupported, "6 heads of 'q' do not divide over tp=4");
}

TEST(ShardRefusal, NothingToSplitIsNoSilentReplication) {
  expect_refused(kProduct, {.mesh = Mesh::parse("tp=2")}, ErrorCode::unsupported, "nothing in the model can be split over tp=2");
  expect_refused(kProduct, {.mesh = Mesh::parse("cp=2")}, ErrorCode::unsupported, "nothing in the model can be split over cp=2");
}

constexpr const char* kQuantized = R"(module
weight %w1: f32[8,12] = source("w1", f32[8,12])
weight %w2: i8[12,6] = source("w2", i8[12,6])
weight %s2: f32[3,6] = source("s2", f32[3,6])
weight %w3: i4[8,6] = source("w3", i4[8,6])
weight %s3: f32[6] = source("s3", f32[6])
program main symbols(B=1:2:8) {
  input %x: f32[B,8]
  weight %w1: f32[8,12]
  weight %w2: i8[12,6]
  weight %s2: f32[3,6]
  weight %w3: i4[8,6]
  weight %s3: f32[6]
  %h = MatMul(%x, %w1)
  %r = Relu(%h)
  %y = DequantMatMul(%r, %w2, _, _, %s2) {block_size=4} "down"
  %z = DequantMatMul(%x, %w3, _, _, %s3) "up"
  return %y as "y", %z as "z"
}
)";

TEST(ShardRefusal, BordersInsideABlockOrAByte) {
  expect_refused(
      kQuantized, {.mesh = Mesh::parse("tp=2")}, ErrorCode::unsupported,
      "[DequantMatMul \"down\"] 12 in quantisation blocks of 4 cannot be split over tp: a border between ranks would lie inside a "
      "block");
  expect_refused(kQuantized, {.mesh = Mesh::parse("m=2"), .strategies = {{"m", "explicit"}}, .io = {{"w3", "1:m"}}}, ErrorCode::unsupported,
                 "[weight 'w3'] 3 columns of i4 on each rank would begin inside a byte");
}

// No op of the list owns regions yet, so one is added to it here.
TEST(ShardRefusal, ANodeWithRegionsIsNamed) {
  const OpDef body{.name = "Body", .doc = "Owns regions.", .min_operands = 1, .max_operands = 1, .infer = [](const OpCall& call) {
                     return std::vector<Type>{call.operand(0)};
                   }};
  std::vector<const OpDef*> list = all_ops().all();
  list.push_back(&body);
  const OpSet ops(list);
  expect_refused(
      "module program main symbols(B=1:2:8) { input %x: f32[B,8] %h = Relu(%x) %y: f32[B,8] = Body(%h) \"loop\" region { %z = Relu(%^x) } "
      "return %y as \"y\" }",
      {.mesh = Mesh::parse("m=2"), .strategies = {{"m", "explicit"}}, .io = {{"x", "0:m"}}}, ErrorCode::unsupported,
      "[Body \"loop\"] a node with regions cannot be sharded", ops);
}

TEST(ShardRefusal, AnAxisWithoutAStrategy) {
  expect_refused(kAttention, {.mesh = Mesh::parse("rows=2")}, ErrorCode::invalid_argument, "mesh axis 'rows' has no strategy");
}

TEST(ShardRefusal, Placements) {
  const auto refused = [](const std::string& name, const std::string& placement, ErrorCode code, const std::string& words) {
    expect_refused(kAttention, {.mesh = Mesh::parse("dp=2"), .io = {{name, placement}}}, code, words);
  };
  refused("nobody", "same", ErrorCode::invalid_argument, "no such input, output or weight");
  refused("q", "local", ErrorCode::unsupported, "sharded by hand");
  refused("q", "4:dp", ErrorCode::invalid_argument, "it has 4 dimensions");
  refused("q", "0:tp", ErrorCode::invalid_argument, "no axis 'tp'");
  refused("q", "dp", ErrorCode::invalid_argument, "expected same or DIM:AXIS");
  refused("q", "0:dp,1:dp", ErrorCode::invalid_argument, "twice");
  refused("o", "9:dp", ErrorCode::invalid_argument, "it has 4 dimensions");
}

}  // namespace
}  // namespace tandem
