// Sharding rules: what they say, and that computing on blocks gives the blocks of the whole.
#include "graph/mesh.h"
#include "ops/layout/reshape_rule.h"
#include "ops/op_test.h"

namespace tandem::testing {
namespace {

using Ints = std::vector<std::int64_t>;
using Rank = ShardingRule::Role;

Tensor block_of(const Tensor& whole, const Sharding& sharding, const Mesh& mesh, int rank) {
  const RecipePtr recipe = shard_recipe(Recipe::from_source("x", whole.dtype(), whole.shape()), sharding, mesh);
  return run_recipe(*recipe, [&](const std::string&) { return whole; }, {{"@tp", rank}});
}

// The dimension's factors, `split` of them over the mesh axis.
Sharding sharding_of(const ShardingRule& rule, const std::vector<ShardingRule::DimFactors>& dims, int split) {
  Sharding sharding;
  for (const auto& factors : dims) {
    sharding.dims.emplace_back();
    for (const int f : factors)
      sharding.dims.back().push_back(
          {rule.factors[static_cast<std::size_t>(f)].size, f == split ? std::vector<std::string>{"tp"} : std::vector<std::string>{}});
  }
  return sharding;
}

// Splits every parallel factor that two ranks divide, one after the other. Returns how many there were.
int check_rule(const OpDef& op, const std::vector<Tensor>& operands, const NamedAttributes& attributes) {
  const Mesh mesh = Mesh::parse("tp=2");
  const Tensor whole = evaluate(op, {operands.begin(), operands.end()}, attributes);
  Module module(all_ops());
  int splits = 0;
  for (int f = 0;; ++f) {
    Graph& graph = module.add_graph("g");
    std::vector<Value*> values;
    for (std::size_t i = 0; i < operands.size(); ++i)
      values.push_back(
          graph.add_input("x" + std::to_string(i), {operands[i].dtype(), {operands[i].shape().begin(), operands[i].shape().end()}}));
    Node* node = graph.add(op, values, attributes);
    const ShardingRule rule = op.rule(node->call());
    if (f == static_cast<int>(rule.factors.size())) return splits;
    const auto& factor = rule.factors[static_cast<std::size_t>(f)];
    if (factor.role != Rank::parallel || factor.size.constant() % 2 != 0 || factor.size == Dim(0)) continue;
    ++splits;
    node->result()->sharding = sharding_of(rule, rule.results[0], f);
    if (op.localize) op.localize(*node, mesh);
    for (int rank = 0; rank < 2; ++rank) {
      std::vector<std::optional<Tensor>> blocks;
      for (std::size_t i = 0; i < operands.size(); ++i)
        blocks.emplace_back(block_of(operands[i], sharding_of(rule, rule.operands[i], f), mesh, rank));
      NamedAttributes local;
      for (std::size_t i = 0; i < op.fields.size(); ++i) local.emplace_back(op.fields[i].name, node->attributes.values()[i]);
      for (auto& [name, value] : local)
        if (auto* dim = std::get_if<Dim>(&value)) *dim = dim->evaluate({{"@tp", rank}});
      const Tensor expected = block_of(whole, node->result()->sharding, mesh, rank);
      const Tensor got = evaluate(op, blocks, local);
      EXPECT_EQ(got.shape(), expected.shape()) << op.name << " factor " << f;
      if (got.shape() == expected.shape()) expect_near(got, expected.to_doubles(), 0);
    }
  }
}

std::vector<Dim> dims(Ints values) { return {values.begin(), values.end()}; }

TEST(Rules, ReshapeOnBlocks) {
  const auto reshape = [](const Shape& from, Ints to) {
    return check_rule(ops::Reshape, {waves(0, from)}, {{"shape", dims(std::move(to))}});
  };
  EXPECT_EQ(reshape({2, 4, 12}, {2, 4, 6, 2}), 4);
  EXPECT_EQ(reshape({2, 4, 6, 2}, {2, 4, 12}), 4);
  EXPECT_EQ(reshape({8, 12}, {2, 4, 3, 2, 2}), 4);
  EXPECT_EQ(reshape({2, 1, 4}, {1, 2, 4, 1}), 2);
  EXPECT_EQ(reshape({2, 6, 4}, {2, 4, 6}), 1);  // 6·4 and 4·6 have no common factors in order
  EXPECT_EQ(reshape({6, 4, 2}, {4, 6, 2}), 1);
  EXPECT_EQ(reshape({4, 0, 2}, {4, 0}), 1);
}

TEST(Rules, OthersOnBlocks) {
  EXPECT_EQ(check_rule(ops::Transpose, {waves(0, {2, 4, 6})}, {{"permutation", Ints{2, 0, 1}}}), 3);
  EXPECT_EQ(check_rule(ops::Concat, {waves(0, {2, 4, 6}), waves(1, {2, 2, 6})}, {{"axis", std::int64_t{1}}}), 2);
  EXPECT_EQ(check_rule(ops::Slice, {waves(0, {2, 6, 4})}, {{"starts", dims({1})}, {"ends", dims({5})}, {"axes", Ints{1}}}), 2);
  EXPECT_EQ(check_rule(ops::Expand, {waves(0, {4, 1})}, {{"shape", dims({2, 4, 6})}}), 3);
  EXPECT_EQ(check_rule(ops::Pad, {waves(0, {2, 4})}, {{"pads", dims({0, 1, 0, 1})}}), 1);
  EXPECT_EQ(check_rule(ops::Trilu, {waves(0, {2, 4, 4})}, {}), 1);
  EXPECT_EQ(check_rule(ops::Gather, {waves(0, {4, 5, 2}), ints({2, 4}, {0, 4, -1, 2, 3, 1, 0, 0})}, {{"axis", std::int64_t{1}}}), 4);
  EXPECT_EQ(check_rule(ops::GatherElements, {waves(0, {3, 4}), ints({2, 4}, {0, 2, -1, 1, 2, 2, 0, -3})}, {{"axis", std::int64_t{0}}}), 2);
  EXPECT_EQ(check_rule(ops::GatherND, {waves(0, {2, 3, 4}), ints({2, 2, 1}, {2, 0, -1, 1})}, {{"batch_dims", std::int64_t{1}}}), 3);
  EXPECT_EQ(check_rule(ops::ScatterND, {waves(0, {3, 4}), ints({2, 1}, {2, 0}), waves(1, {2, 4})}, {}), 1);
  EXPECT_EQ(check_rule(ops::Iota, {}, {{"offset", Dim(3)}, {"extent", Dim(6)}}), 1);
}

std::string sizes(const ShardingRule& rule, const std::vector<ShardingRule::DimFactors>& value) {
  std::string text;
  for (const auto& factors : value) {
    text += "[";
    for (const int f : factors)
      text += (text.back() == '[' ? "" : " ") + rule.factors[static_cast<std::size_t>(f)].size.to_string() +
              (rule.factors[static_cast<std::size_t>(f)].role == Rank::whole ? "!" : "");
    text += "]";
  }
  return text;
}

std::string factors_of(const std::string& from, const std::string& to) {
  const ShardingRule rule = reshape_rule(type_of(DType::f32, from).dims, type_of(DType::f32, to).dims);
  return sizes(rule, rule.operands[0]) + " " + sizes(rule, rule.results[0]);
}

TEST(Rules, ReshapeOfSymbols) {
  EXPECT_EQ(factors_of("B,S,384", "B,S,12,32"), "[B][S][12 32] [B][S][12][32]");
  EXPECT_EQ(factors_of("B,S,12,32", "B*S,384"), "[B][S][12][32] [B S][12 32]");
  EXPECT_EQ(factors_of("B*S,3*H*D", "B,S,3,H,D"), "[B S][3 H D] [B][S][3][H][D]");
  EXPECT_EQ(factors_of("B,8,S,16", "B,4,2,S,16"), "[B][4 2][S][16] [B][4][2][S][16]");
  EXPECT_EQ(factors_of("B,S", "B,floordiv(S,4),4"), "[B][S!] [B][floordiv(S,4)!][4!]");
  EXPECT_EQ(factors_of("1,B,S", "B,1,S"), "[][B][S] [B][][S]");
}

}  // namespace
}  // namespace tandem::testing
