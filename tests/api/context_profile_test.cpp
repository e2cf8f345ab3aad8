// The profiler of a context and of a model.
#include <gtest/gtest.h>

#include <chrono>
#include <thread>

#include "tandem/tandem.h"

namespace tandem {
namespace {

Engine mlp(const std::string& mesh) {
  BuildOptions options;
  options.mesh = mesh;
  return build(std::string(TANDEM_MODELS) + "/mlp_dynamo.onnx", options);
}

struct Arguments {
  explicit Arguments(const Engine& engine) : arrays(engine.random_inputs()), input(arrays.begin()->second) {}
  void run(Context& context) {
    context.set_input_shape(0, input.shape);
    output.assign(static_cast<std::size_t>(element_count(context.output_shape(0))), -1.0f);
    const void* const in[] = {input.data.get()};
    void* const out[] = {output.data()};
    context.run(in, out);
  }
  Arrays arrays;
  Array input;
  std::vector<float> output;
};

TEST(Profile, EveryStepOnceInOrderWithinTheRun) {
  const Engine engine = mlp("");
  Arguments plain(engine), timed(engine);
  Context context(engine);
  plain.run(context);
  std::vector<StepTime> steps;
  context.set_profiler([&](const StepTime& step) { steps.push_back(step); });
  const auto begin = std::chrono::steady_clock::now();
  timed.run(context);
  const double whole = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  EXPECT_EQ(timed.output, plain.output);
  ASSERT_GE(steps.size(), 2u);
  double last = 0;
  for (std::size_t i = 0; i < steps.size(); ++i) {
    EXPECT_EQ(steps[i].step, i);
    EXPECT_FALSE(steps[i].op.empty());
    EXPECT_FALSE(steps[i].kernel.empty());
    EXPECT_EQ(steps[i].kind(), "compute");
    EXPECT_EQ(steps[i].waiting, 0);
    EXPECT_GE(steps[i].begin, last);
    EXPECT_GE(steps[i].seconds, 0);
    last = steps[i].begin + steps[i].seconds;
  }
  EXPECT_LE(last, whole);
  const std::size_t count = steps.size();
  timed.run(context);
  EXPECT_EQ(steps.size(), 2 * count);
  context.set_profiler({});
  timed.run(context);
  EXPECT_EQ(steps.size(), 2 * count);
}

TEST(Profile, WaitingForALateRankIsTold) {
  const Engine engine = mlp("tp=2");
  auto groups = Group::in_process(2);
  std::vector<StepTime> steps[2];
  std::vector<std::thread> threads;
  for (int rank = 0; rank < 2; ++rank)
    threads.emplace_back([&, rank] {
      Arguments arguments(engine);
      Context context(engine, {.rank = rank, .threads = 1});
      context.set_communicator(std::move(groups[static_cast<std::size_t>(rank)]));
      arguments.run(context);
      context.set_profiler([&](const StepTime& step) { steps[rank].push_back(step); });
      if (rank == 1) std::this_thread::sleep_for(std::chrono::milliseconds(200));
      arguments.run(context);
    });
  for (auto& thread : threads) thread.join();
  double waiting = 0;
  int collectives = 0;
  for (const StepTime& step : steps[0]) {
    EXPECT_LE(step.waiting, step.seconds);
    EXPECT_TRUE(step.communicates || step.waiting == 0) << step.node;
    waiting += step.waiting;
    collectives += step.communicates;
  }
  EXPECT_GT(collectives, 0);
  EXPECT_GT(waiting, 0.1);
  EXPECT_TRUE(std::any_of(steps[0].begin(), steps[0].end(), [](const StepTime& step) { return step.kind() == "wait"; }));
  EXPECT_EQ(steps[0].size(), steps[1].size());
}

TEST(Profile, OfAllRanksOfAModel) {
  const Engine engine = mlp("tp=2");
  const Arrays inputs = engine.random_inputs();
  Model model(engine);
  RankArrays outputs;
  const auto ranks = model.profile({{inputs.begin()->first, {inputs.begin()->second}}}, &outputs);
  ASSERT_EQ(ranks.size(), 2u);
  EXPECT_EQ(ranks[0].size(), ranks[1].size());
  EXPECT_TRUE(std::any_of(ranks[0].begin(), ranks[0].end(), [](const StepTime& step) { return step.communicates; }));
  const RankArrays wanted = model.run(inputs);
  const Array &a = outputs.begin()->second.at(0), &b = wanted.begin()->second.at(0);
  EXPECT_TRUE(std::equal(a.data.get(), a.data.get() + a.size_bytes(), b.data.get()));
}

}  // namespace
}  // namespace tandem
