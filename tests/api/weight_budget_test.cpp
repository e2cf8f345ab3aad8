// Engines whose weights have not all room: the same bits as with all of them resident, within the budget. The CPU device runs what GPUs
// run, copies as early as they may begin.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cstring>
#include <random>
#include <set>

#include "api/models.h"
#include "api/run/engine_data.h"
#include "comm/ranks.h"
#include "runtime/context.h"
#include "support/thrown.h"
#include "tandem/tandem.h"
#include "team/team.h"

namespace tandem {
namespace {

using testing::expect_says;
using testing::model_path;
using testing::on;
using testing::thrown;

using Outputs = std::vector<std::vector<std::byte>>;

Outputs run(RankContext& context, const Arrays& inputs, int times = 2) {
  std::vector<const std::byte*> in;
  for (const Binding& input : context.program().inputs) {
    const Array& array = inputs.at(input.name);
    context.set_input_shape(input.name, array.shape);
    in.push_back(array.data.get());
  }
  Outputs outputs;
  std::vector<std::byte*> out;
  for (std::size_t i = 0; i < context.program().outputs.size(); ++i)
    outputs.emplace_back(bytes(context.program().outputs[i].type.dtype, element_count(context.output_shape(i))));
  for (auto& output : outputs) out.push_back(output.data());
  for (int i = 0; i < times; ++i) {
    for (auto& output : outputs) std::ranges::fill(output, std::byte{0xa5});
    context.run(in, out);
  }
  return outputs;
}

// Of one rank, alone or in a group.
Outputs run_rank(const Engine& engine, const Arrays& inputs, std::optional<std::size_t> budget, Group* group = nullptr) {
  const int rank = group ? group->rank() : 0;
  const auto loaded = RankEngine::load(engine.data().plans[0], rank, engine.data().weights, {}, budget);
  RankContext context(loaded, {});
  context.set_communicator(group);
  Outputs outputs = run(context, inputs);
  if (budget) {
    const std::size_t ring = loaded->streaming() ? loaded->streaming()->residency.ring_bytes : 0;
    const WeightSizes weighed = RankEngine::weigh(engine.data().plans[0], rank, budget);
    EXPECT_EQ(weighed.ring_bytes, ring);
    EXPECT_EQ(loaded->streaming() != nullptr, *budget < weighed.bytes);
  }
  return outputs;
}

std::vector<std::size_t> budgets_of(const Engine& engine, int rank = 0) {
  const WeightSizes all = RankEngine::weigh(engine.data().plans[0], rank);
  EXPECT_EQ(all.streamed_bytes, 0u);
  EXPECT_LT(all.least_budget, all.bytes);
  std::set<std::size_t> budgets;
  for (const std::size_t part : {0, 1, 10, 30, 50, 75, 95, 99, 100})
    budgets.insert(all.least_budget + (all.bytes - all.least_budget) * part / 100);
  return {budgets.begin(), budgets.end()};
}

void expect_same_bits(const Engine& engine) {
  const Arrays inputs = engine.random_inputs(3);
  const int ranks = engine.ranks();
  std::vector<Outputs> resident(static_cast<std::size_t>(ranks));
  const auto each = [&](const std::function<void(Group*)>& work) {
    if (ranks == 1) return work(nullptr);
    run_ranks(ranks, [&](Group& group) { work(&group); });
  };
  each([&](Group* group) { resident[static_cast<std::size_t>(group ? group->rank() : 0)] = run_rank(engine, inputs, {}, group); });
  for (const std::size_t budget : budgets_of(engine)) {
    SCOPED_TRACE(fmt::format("budget {}", budget));
    each([&](Group* group) {
      const Outputs streamed = run_rank(engine, inputs, budget, group);
      EXPECT_EQ(streamed, resident[static_cast<std::size_t>(group ? group->rank() : 0)]);
    });
  }
}

// The kernel reads its weights as they are, so that they can be streamed.
BuildOptions plain(const std::string& mesh = "") {
  BuildOptions options = on(mesh);
  options.kernels = {"highway_matmul"};
  return options;
}

TEST(WeightBudget, SameBitsOnOneRank) {
  for (const char* model : {"mlp_legacy", "gpt2_legacy", "llama_dynamo", "bert_legacy"}) {
    SCOPED_TRACE(model);
    expect_same_bits(build(model_path(model), plain()));
  }
}

// Weights that are large enough for a ring of two slots, of three sizes.
TEST(WeightBudget, SameBitsWithTwoSlots) {
  constexpr std::int64_t kWidth = 384;
  std::mt19937 random(11);
  std::uniform_real_distribution<float> real(-0.1f, 0.1f);
  Network network;
  Network::Value x = network.input("x", DType::f32, {3, kWidth});
  std::int64_t width = kWidth;
  for (int i = 0; i < 14; ++i) {
    const std::int64_t next = i == 13 ? kWidth : kWidth * (1 + i % 3);
    Tensor w(DType::f32, {width, next});
    for (std::int64_t e = 0; e < w.count(); ++e) store_element(DType::f32, w.mutable_data(), e, real(random));
    x = network.add("Relu", {network.add("MatMul", {x, network.weight(fmt::format("w{}", i), to_array(w))})});
    width = next;
  }
  network.output("y", x);
  const Engine engine = build(network, plain());
  bool two_slots = false;
  for (const std::size_t budget : budgets_of(engine)) {
    const auto loaded = RankEngine::load(engine.data().plans[0], 0, engine.data().weights, {}, budget);
    if (!loaded->streaming()) continue;
    for (const Fetch& fetch : loaded->streaming()->fetches[0]) two_slots = two_slots || (fetch.after >= 0 && fetch.after < fetch.step - 1);
  }
  EXPECT_TRUE(two_slots);
  expect_same_bits(engine);
}

TEST(WeightBudget, SameBitsWherePackedWeightsAreStreamed) {
  for (const char* type : {"int8", "int4"}) {
    BuildOptions options = plain();
    options.weights = type;
    const Engine engine = build(model_path("llama_dynamo"), options);
    int packed = 0;
    const auto loaded =
        RankEngine::load(engine.data().plans[0], 0, engine.data().weights, {}, RankEngine::weigh(engine.data().plans[0], 0).least_budget);
    for (const WeightBlocks::Source& source : loaded->streaming()->blocks.sources) packed += source.weight < 0;
    EXPECT_GT(packed, 0);
    expect_same_bits(engine);
  }
}

// What oneDNN keeps in forms of its own stays, beside the budget.
TEST(WeightBudget, SameBitsWhereKernelsKeepTheirOwn) {
  const Engine engine = build(model_path("llama_dynamo"));
  const Arrays inputs = engine.random_inputs(4);
  const auto resident = RankEngine::load(engine.data().plans[0], 0, engine.data().weights);
  const auto loaded =
      RankEngine::load(engine.data().plans[0], 0, engine.data().weights, {}, RankEngine::weigh(engine.data().plans[0], 0).least_budget);
  RankContext streamed(loaded, {}), reference(resident, {});
  EXPECT_EQ(run(streamed, inputs), run(reference, inputs));
}

TEST(WeightBudget, EachRankStreamsItsOwnShards) {
  for (const char* mesh : {"tp=2", "dp=2", "dp=2,tp=2"}) {
    SCOPED_TRACE(mesh);
    const Engine engine = build(model_path("gpt2_legacy"), plain(mesh));
    expect_same_bits(engine);
  }
  const Engine one = build(model_path("gpt2_legacy"), plain()), two = build(model_path("gpt2_legacy"), plain("tp=2"));
  EXPECT_LT(RankEngine::weigh(two.data().plans[0], 1).bytes, RankEngine::weigh(one.data().plans[0], 0).bytes);
}

// Contexts share what is loaded, each with a ring of its own; profiles of one context share its ring.
TEST(WeightBudget, ContextsAndProfilesShareWhatIsLoaded) {
  BuildOptions options = plain();
  options.profiles = {{{"input_ids", "1x1:1x4:1x8"}}, {{"input_ids", "1x9:1x12:1x16"}}};
  const Engine engine = build(model_path("llama_dynamo"), options);
  ASSERT_EQ(engine.profiles(), 2);
  const WeightSizes all = RankEngine::weigh(engine.data().plans[0], 0);
  const auto resident = RankEngine::load(engine.data().plans[0], 0, engine.data().weights);
  const auto loaded = RankEngine::load(engine.data().plans[0], 0, engine.data().weights, {}, (all.least_budget + all.bytes) / 2);
  ASSERT_TRUE(loaded->streaming());
  RankContext first(loaded, {.profile = -1}), second(loaded, {.profile = -1}), reference(resident, {.profile = -1});
  for (int round = 0; round < 3; ++round)
    for (const int profile : {0, 1}) {
      const Arrays inputs = engine.random_inputs(static_cast<unsigned>(round), profile);
      const Outputs expected = run(reference, inputs);
      EXPECT_EQ(run(first, inputs, 1), expected);
      EXPECT_EQ(run(second, inputs, 1), expected);
    }
}

TEST(WeightBudget, WhatIsLoadedStaysWithinIt) {
  const Engine engine = build(model_path("llama_dynamo"), plain());
  for (const std::size_t budget : budgets_of(engine)) {
    const auto loaded = RankEngine::load(engine.data().plans[0], 0, engine.data().weights, {}, budget);
    const std::size_t ring = loaded->streaming() ? loaded->streaming()->residency.ring_bytes : 0;
    EXPECT_LE(loaded->weight_bytes() + ring, budget);
  }
}

TEST(WeightBudget, TooSmallABudgetNamesTheLeast) {
  const Engine engine = build(model_path("llama_dynamo"), plain());
  const std::size_t least = RankEngine::weigh(engine.data().plans[0], 0).least_budget;
  const Error error = thrown([&] { RankEngine::load(engine.data().plans[0], 0, engine.data().weights, {}, least - 1); });
  EXPECT_EQ(error.code(), ErrorCode::invalid_argument);
  expect_says(error, fmt::format("needs {} at once", least));
}

// A team gives the budget to every rank, be it a thread or a process.
TEST(WeightBudget, RanksOfATeamHaveIt) {
  const Engine engine = build(model_path("gpt2_legacy"), plain("tp=2"));
  const EngineData& data = engine.data();
  const WeightSizes all = RankEngine::weigh(data.plans[0], 0);
  TeamTensors inputs;
  for (const auto& [name, array] : engine.random_inputs(5)) inputs[name] = {to_tensor(array)};
  TeamSettings settings;
  settings.drain_deadline = std::chrono::seconds(2);
  const TeamTensors expected = Team(data.plans, data.weights, settings).run(inputs);
  settings.weight_budget = (all.least_budget + all.bytes) / 2;
  for (const bool processes : {false, true}) {
    if (processes) settings.rank_command = {"/proc/self/exe", "rank"};
    const TeamTensors outputs = Team(data.plans, data.weights, settings).run(inputs);
    for (const auto& [name, list] : expected)
      EXPECT_EQ(std::memcmp(outputs.at(name)[0].data(), list[0].data(), list[0].size_bytes()), 0) << name;
    TeamSettings small = settings;
    small.weight_budget = all.least_budget - 1;
    const Error error = thrown([&] { Team(data.plans, data.weights, small); });
    EXPECT_EQ(error.code(), ErrorCode::invalid_argument);
    expect_says(error, fmt::format("needs {} at once", all.least_budget));
  }
}

// Through the public API CPU ranks have none.
TEST(WeightBudget, IsRefusedForCpuRanks) {
  const Engine engine = build(model_path("mlp_legacy"));
  const std::function<void()> calls[] = {[&] { Context(engine, {.weight_budget_bytes = 1 << 20}); },
                                         [&] { Model(engine, {.weight_budget_bytes = 1 << 20}); }, [&] { engine.weight_memory(); },
                                         [&] { engine.automatic_weight_budget(); }};
  for (const auto& call : calls) {
    const Error error = thrown(call);
    EXPECT_EQ(error.code(), ErrorCode::unsupported);
    expect_says(error, "ranks of the CPU read their weights where the file is mapped");
  }
}

}  // namespace
}  // namespace tandem
