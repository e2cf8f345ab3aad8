// A team of thread and process ranks against plain loops: scatter, padding, collectives, gather, failure.
#include "team/team.h"

#include <gtest/gtest.h>
#include <signal.h>

#include "build/build.h"
#include "graph/builder.h"
#include "ops/ops.h"
#include "passes/shard.h"
#include "team/blocks.h"

namespace tandem {
namespace {

constexpr std::int64_t kWidth = 4, kHidden = 8;

// y = relu(x w1) w2 over x[B,4].
std::unique_ptr<Module> make_mlp() {
  auto module = std::make_unique<Module>(all_ops());
  Graph& graph = module->add_graph("main");
  const auto weight = [&](const std::string& name, std::int64_t rows, std::int64_t columns) {
    std::vector<double> values;
    for (std::int64_t i = 0; i < rows * columns; ++i) values.push_back(static_cast<double>(i * 7 % 11) / 8 - 0.5);
    module->add_source(name, Tensor::of(DType::f32, {rows, columns}, values));
    return graph.weight_value(module->add_weight(name, Recipe::from_source(name, DType::f32, {rows, columns})));
  };
  Value* x = graph.add_input("x", {DType::f32, {Dim::symbol("B"), kWidth}});
  GraphBuilder builder(graph);
  Value* hidden = builder.add("Relu", {builder.add("MatMul", {x, weight("w1", kWidth, kHidden)})});
  graph.outputs().push_back({"y", builder.add("MatMul", {hidden, weight("w2", kHidden, kWidth)})});
  graph.profiles.push_back({{"B", {0, 4, 64}}});
  return module;
}

std::vector<double> expected(const std::vector<double>& x) {
  const auto w = [](std::int64_t i) { return static_cast<double>(i * 7 % 11) / 8 - 0.5; };
  std::vector<double> y;
  for (std::size_t row = 0; row < x.size() / kWidth; ++row)
    for (std::int64_t j = 0; j < kWidth; ++j) {
      double sum = 0;
      for (std::int64_t h = 0; h < kHidden; ++h) {
        double inner = 0;
        for (std::int64_t k = 0; k < kWidth; ++k) inner += x[row * kWidth + static_cast<std::size_t>(k)] * w(k * kHidden + h);
        sum += std::max(inner, 0.0) * w(h * kWidth + j);
      }
      y.push_back(sum);
    }
  return y;
}

struct Built {
  std::shared_ptr<Module> module;
  std::shared_ptr<const Plan> plan;
  WeightSource weights() const {
    return [module = module, plan = plan](const PlanWeight& w, int rank) {
      return run_recipe(*w.recipe, [&](const std::string& name) { return module->source(name); }, coordinates(plan->mesh, rank));
    };
  }
};

Built build_mlp(const std::string& mesh) {
  Built built{make_mlp(), nullptr};
  shard(*built.module, {Mesh::parse(mesh), {}});
  built.plan = std::make_shared<Plan>(build_plan(*built.module));
  return built;
}

std::vector<double> ramp(std::int64_t rows) {
  std::vector<double> x;
  for (std::int64_t i = 0; i < rows * kWidth; ++i) x.push_back(static_cast<double>(i % 13) / 4 - 1.25);
  return x;
}

class OnMesh : public ::testing::TestWithParam<std::tuple<std::string, bool>> {};

TEST_P(OnMesh, MatchesPlainLoops) {
  const auto& [mesh, processes] = GetParam();
  const Built built = build_mlp(mesh);
  TeamSettings settings;
  settings.processes = processes;
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
                         ::testing::Combine(::testing::Values("", "tp=2", "dp=2", "dp=3", "dp=2,tp=2"), ::testing::Bool()));

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

TEST(Team, NamesAKilledRank) {
  const Built built = build_mlp("tp=2");
  TeamSettings settings;
  settings.processes = true;
  Team team({built.plan}, built.weights(), settings);
  const TeamTensors inputs = {{"x", {Tensor(DType::f32, {2, 4})}}};
  team.run(inputs);
  ASSERT_EQ(::kill(team.process(1), SIGKILL), 0);
  const auto begin = std::chrono::steady_clock::now();
  try {
    team.run(inputs);
    FAIL() << "the run of a team with a killed rank ended well";
  } catch (const Error& error) {
    EXPECT_EQ(error.rank(), 1) << error.what();
    EXPECT_EQ(error.code(), ErrorCode::rank_failed) << error.what();
  }
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(4));
  EXPECT_THROW(team.run(inputs), Error);
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
