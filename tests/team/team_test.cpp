// A team of thread and process ranks against plain loops: scatter, padding, collectives, gather, wrong inputs.
#include <gtest/gtest.h>

#include "team/blocks.h"
#include "team/mlp.h"
#include "team/rank_messages.h"

namespace tandem {
namespace {

class OnMesh : public ::testing::TestWithParam<std::tuple<std::string, bool>> {};

TEST_P(OnMesh, MatchesPlainLoops) {
  const auto& [mesh, processes] = GetParam();
  const Built built = build_mlp(mesh);
  TeamSettings settings;
  if (processes) settings.rank_command = own_ranks();
  Team team({built.plan}, built.weights(), settings);
  for (const std::int64_t rows : {5, 1, 8, 5}) {
    const auto x = ramp(rows);
    TeamTimes times;
    const TeamTensors out = team.run({{"x", {Tensor::of(DType::f32, {rows, kWidth}, x)}}}, true, &times);
    const Tensor& y = out.at("y").at(0);
    ASSERT_EQ(y.shape(), (Shape{rows, kWidth}));
    const auto want = expected(x);
    for (std::size_t i = 0; i < want.size(); ++i) EXPECT_NEAR(y.at(static_cast<std::int64_t>(i)), want[i], 1e-5);
    ASSERT_EQ(times.trace.size(), static_cast<std::size_t>(team.size()));
    EXPECT_EQ(times.trace[0].size(), built.plan->programs[0].steps.size());
  }
}

INSTANTIATE_TEST_SUITE_P(Team, OnMesh,
                         ::testing::Combine(::testing::Values("", "tp=2", "dp=2", "dp=3", "dp=2,tp=2", "dp=4,tp=2"), ::testing::Bool()));

TEST(Team, NamesWrongInputs) {
  const Built built = build_mlp("dp=2");
  Team team({built.plan}, built.weights(), {});
  const auto message = [&](const TeamTensors& inputs) {
    try {
      team.run(inputs);
    } catch (const Error& error) {
      return std::string(error.what());
    }
    return std::string();
  };
  EXPECT_NE(message({}).find("'x'"), std::string::npos);
  EXPECT_NE(message({{"x", {Tensor(DType::f64, {2, 4})}}}).find("f64"), std::string::npos);
  EXPECT_NE(message({{"x", {Tensor(DType::f32, {2, 5})}}}).find("extent 5"), std::string::npos);
  EXPECT_NE(message({{"x", {Tensor(DType::f32, {65, 4})}}}).find("B = 65"), std::string::npos);
  EXPECT_NE(message({{"x", {Tensor(DType::f32, {2, 4})}}, {"z", {Tensor(DType::f32, {2, 4})}}}).find("'z'"), std::string::npos);
  EXPECT_EQ(message({{"x", {Tensor(DType::f32, {2, 4})}}}), "");  // still usable
}

// Only GPUs have something to say; what a rank process says must come over.
TEST(Team, TellsWhyCollectivesOfGpusGoThroughTheHost) {
  EXPECT_EQ(reply_from_json(to_json(RankReply{.through_host = "ranks 0 and 1 share one GPU"})).through_host, "ranks 0 and 1 share one GPU");
  EXPECT_EQ(reply_from_json(to_json(RankReply{})).through_host, "");
  const Built built = build_mlp("tp=2");
  TeamTimes times;
  times.through_host = "of a run before";
  Team({built.plan}, built.weights(), {}).run({{"x", {Tensor(DType::f32, {2, kWidth})}}}, false, &times);
  EXPECT_EQ(times.through_host, "");
}

TEST(Blocks, PadsTheLastBlockAndTrimsIt) {
  const Mesh mesh = Mesh::parse("dp=2");
  const Sharding sharding = Sharding::split(2, 0, 3, "dp");
  const Type type{DType::i32, {3, 2}};
  const Tensor whole = Tensor::of_ints(DType::i32, {3, 2}, std::vector<std::int64_t>{1, 2, 3, 4, 5, 6});
  Tensor block(DType::i32, {2, 2}), back(DType::i32, {3, 2});
  const std::int64_t want[2][4] = {{1, 2, 3, 4}, {5, 6, 0, 0}};
  for (int rank = 0; rank < 2; ++rank) {
    const BlockMap map(type, sharding, mesh, rank, {});
    map.scatter(whole.data(), block.mutable_data());
    for (std::int64_t i = 0; i < 4; ++i) EXPECT_EQ(block.int_at(i), want[rank][i]);
    map.gather(block.data(), back.mutable_data());
  }
  EXPECT_EQ(back.to_ints(), whole.to_ints());
}

}  // namespace
}  // namespace tandem
