// Ranks that the caller runs itself, and memory of the caller that is used where it lies.
#include "tandem/context.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <thread>

#include "api/models.h"
#include "support/thrown.h"
#include "tandem/tandem.h"

namespace tandem {
namespace {

using testing::model_path;
using testing::thrown;

Engine mlp(const std::string& mesh) {
  BuildOptions options;
  options.mesh = mesh;
  return build(model_path("mlp_dynamo"), options);
}

// What a context gives for its part of `inputs`, which all ranks have whole.
std::vector<std::vector<float>> outputs_of(Context& context, const Engine& engine, const Arrays& inputs) {
  std::vector<const void*> in;
  for (std::size_t i = 0; i < engine.inputs().size(); ++i) {
    const Array& array = inputs.at(engine.inputs()[i].name);
    context.set_input_shape(i, array.shape);
    in.push_back(array.data.get());
  }
  std::vector<std::vector<float>> outputs;
  std::vector<void*> out;
  for (std::size_t i = 0; i < engine.outputs().size(); ++i)
    outputs.emplace_back(static_cast<std::size_t>(element_count(context.output_shape(i))));
  for (auto& output : outputs) out.push_back(output.data());
  context.run(in, out);
  return outputs;
}

void expect_near(const std::vector<float>& got, const Array& wanted) {
  ASSERT_EQ(got.size(), static_cast<std::size_t>(element_count(wanted.shape)));
  const auto* values = reinterpret_cast<const float*>(wanted.data.get());
  for (std::size_t i = 0; i < got.size(); ++i) ASSERT_NEAR(got[i], values[i], 1e-5) << i;
}

TEST(Context, OneRankRunsInPlace) {
  const Engine engine = mlp("");
  const Arrays inputs = engine.random_inputs();
  Context context(engine);
  const auto outputs = outputs_of(context, engine, inputs);
  expect_near(outputs.at(0), Model(engine).run(inputs).at(engine.outputs()[0].name).at(0));
  EXPECT_EQ(context.last_copies(), 0);
}

TEST(Context, EnqueueOnTheCpuIsDoneWhenItReturnsAndTakesNoStream) {
  const Engine engine = mlp("");
  const Arrays inputs = engine.random_inputs();
  Context context(engine);
  const auto wanted = outputs_of(context, engine, inputs);
  std::vector<float> got(wanted.at(0).size());
  const void* const in[] = {inputs.at(engine.inputs()[0].name).data.get()};
  void* const out[] = {got.data()};
  context.enqueue(in, out);
  EXPECT_EQ(got, wanted.at(0));
  context.synchronize();
  int stream = 0;
  EXPECT_EQ(thrown([&] { context.enqueue(in, out, &stream); }).code(), ErrorCode::unsupported);
  context.enqueue(in, out);  // as before
}

TEST(Context, RanksOfThisProcess) {
  const Engine engine = mlp("tp=2");
  const Arrays inputs = engine.random_inputs();
  const RankArrays wanted = Model(engine).run(inputs);
  auto groups = Group::in_process(2);
  std::vector<std::thread> threads;
  for (int rank = 0; rank < 2; ++rank)
    threads.emplace_back([&, rank] {
      const std::shared_ptr<Group> group = std::move(groups[static_cast<std::size_t>(rank)]);
      Context context(engine, {.rank = rank, .threads = 1});
      context.set_communicator(group);
      for (int i = 0; i < 3; ++i) expect_near(outputs_of(context, engine, inputs).at(0), wanted.at(engine.outputs()[0].name).at(0));
      context.set_communicator(group);  // again
      expect_near(outputs_of(context, engine, inputs).at(0), wanted.at(engine.outputs()[0].name).at(0));
    });
  for (auto& thread : threads) thread.join();
}

TEST(Context, GroupsOfNoUseGiveANotice) {
  const Engine alone = mlp("");
  const Arrays inputs = alone.random_inputs();
  Context context(alone);
  EXPECT_TRUE(context.notices().empty());
  context.set_communicator(std::move(Group::in_process(3)[1]));
  ASSERT_EQ(context.notices().size(), 1u);
  EXPECT_NE(context.notices()[0].find("group of 3"), std::string::npos);
  expect_near(outputs_of(context, alone, inputs).at(0), Model(alone).run(inputs).at(alone.outputs()[0].name).at(0));
  context.set_communicator(nullptr);
  EXPECT_TRUE(context.notices().empty());

  const Engine apart = mlp("dp=2"), together = mlp("tp=2");
  Context part(apart, {.rank = 1}), one(together, {.rank = 1});
  EXPECT_EQ(thrown([&] { part.set_communicator(std::move(Group::in_process(3)[1])); }).code(), ErrorCode::mismatch);
  EXPECT_TRUE(part.notices().empty());
  part.set_communicator(std::move(Group::in_process(2)[1]));
  EXPECT_EQ(part.notices().size(), 1u);
  one.set_communicator(std::move(Group::in_process(2)[1]));
  EXPECT_TRUE(one.notices().empty());
}

// Forks `ranks` processes, each with life(rank), and gives the signal or exit status that ended each.
std::vector<int> statuses_of(int ranks, const std::function<void(int)>& life) {
  std::vector<pid_t> children;
  for (int rank = 0; rank < ranks; ++rank) {
    children.push_back(::fork());
    if (children.back() != 0) continue;
    int status = 1;
    try {
      life(rank);
      status = ::testing::Test::HasFailure() ? 1 : 0;
    } catch (const std::exception& error) {
      std::fprintf(stderr, "rank %d: %s\n", rank, error.what());
    }
    std::fflush(nullptr);
    ::_exit(status);
  }
  std::vector<int> statuses;
  for (const pid_t child : children) {
    int status = -1;
    ::waitpid(child, &status, 0);
    statuses.push_back(WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status));
  }
  return statuses;
}

GroupOptions new_run() {
  static int number = 0;
  return {.run_id = "context_test." + std::to_string(::getpid()) + "." + std::to_string(number++), .rendezvous_deadline_s = 20};
}

TEST(Context, RanksOfOtherProcesses) {
  const Engine engine = mlp("tp=2");
  const Arrays inputs = engine.random_inputs();
  const RankArrays wanted = Model(engine).run(inputs);
  const GroupOptions run = new_run();
  const std::vector<int> statuses = statuses_of(2, [&](int rank) {
    Context context(engine, {.rank = rank, .threads = 1});
    context.set_communicator(Group::join(rank, 2, "localhost:29500", run));
    expect_near(outputs_of(context, engine, inputs).at(0), wanted.at(engine.outputs()[0].name).at(0));
  });
  EXPECT_EQ(statuses, (std::vector<int>{0, 0}));
}

TEST(Binding, OneThreadBindsInAnyOrder) {
  const Engine engine = mlp("tp=2");
  const Arrays inputs = engine.random_inputs();
  auto groups = Group::in_process(2);
  Context first(engine, {.rank = 0, .threads = 1}), second(engine, {.rank = 1, .threads = 1});
  second.set_communicator(std::move(groups[1]));  // none of them waits
  first.set_communicator(std::move(groups[0]));
  std::thread other([&] { outputs_of(second, engine, inputs); });
  expect_near(outputs_of(first, engine, inputs).at(0), Model(engine).run(inputs).begin()->second.at(0));
  other.join();
}

TEST(Binding, TwoContextsOfOneGroupAndItsOwnCalls) {
  const Engine engine = mlp("tp=2");
  const Arrays inputs = engine.random_inputs();
  const Array wanted = Model(engine).run(inputs).begin()->second.at(0);
  auto groups = Group::in_process(2);
  std::vector<std::thread> threads;
  for (int rank = 0; rank < 2; ++rank)
    threads.emplace_back([&, rank] {
      std::shared_ptr<Group> group = std::move(groups[static_cast<std::size_t>(rank)]);
      Context a(engine, {.rank = rank, .threads = 1}), b(engine, {.rank = rank, .threads = 1});
      a.set_communicator(group);
      b.set_communicator(group);
      a.set_input_shape(0, inputs.begin()->second.shape);
      a.prepare();
      EXPECT_EQ(group->exchange({}).size(), 2u);
      expect_near(outputs_of(b, engine, inputs).at(0), wanted);
      group.reset();  // the contexts keep it
      expect_near(outputs_of(a, engine, inputs).at(0), wanted);
      expect_near(outputs_of(b, engine, inputs).at(0), wanted);
    });
  for (auto& thread : threads) thread.join();
}

TEST(Binding, ReleasedAndBoundToAnother) {
  const Engine engine = mlp("tp=2");
  const Arrays inputs = engine.random_inputs();
  const Array wanted = Model(engine).run(inputs).begin()->second.at(0);
  auto first = Group::in_process(2), second = Group::in_process(2);
  std::vector<std::thread> threads;
  for (int rank = 0; rank < 2; ++rank)
    threads.emplace_back([&, rank] {
      const auto r = static_cast<std::size_t>(rank);
      Context context(engine, {.rank = rank, .threads = 1});
      context.set_communicator(std::move(first[r]));
      expect_near(outputs_of(context, engine, inputs).at(0), wanted);
      context.set_communicator(nullptr);
      EXPECT_NE(std::string(thrown([&] { outputs_of(context, engine, inputs); }).what()).find("no group is bound"), std::string::npos);
      context.set_communicator(std::move(second[r]));
      expect_near(outputs_of(context, engine, inputs).at(0), wanted);
    });
  for (auto& thread : threads) thread.join();
}

TEST(Binding, RanksWithOtherEnginesAreToldBeforeTheFirstKernel) {
  const Engine engines[] = {mlp("tp=2"), mlp("dp=2")};
  auto groups = Group::in_process(2);
  std::vector<std::thread> threads;
  for (int rank = 0; rank < 2; ++rank)
    threads.emplace_back([&, rank] {
      Context context(engines[rank], {.rank = rank, .threads = 1});
      context.set_communicator(std::move(groups[static_cast<std::size_t>(rank)]));
      const Error error = thrown([&] { outputs_of(context, engines[rank], engines[rank].random_inputs()); });
      EXPECT_EQ(error.code(), ErrorCode::mismatch) << error.what();
      EXPECT_NE(error.message().find("ranks 0 and 1 disagree on the plan"), std::string::npos) << error.what();
    });
  for (auto& thread : threads) thread.join();
}

TEST(Binding, KilledProcessIsNamedToTheOthers) {
  const Engine engine = mlp("tp=4");
  const Arrays inputs = engine.random_inputs();
  const GroupOptions run = new_run();
  const std::vector<int> statuses = statuses_of(4, [&](int rank) {
    Context context(engine, {.rank = rank, .threads = 1});
    context.set_communicator(Group::join(rank, 4, "localhost:29500", run));
    outputs_of(context, engine, inputs);
    if (rank == 2) ::raise(SIGKILL);
    const Error error = thrown([&] {
      for (int i = 0; i < 3; ++i) outputs_of(context, engine, inputs);
    });
    EXPECT_EQ(error.code(), ErrorCode::rank_failed) << error.what();
    EXPECT_EQ(error.rank(), 2) << error.what();
  });
  EXPECT_EQ(statuses, (std::vector<int>{0, 0, 128 + SIGKILL, 0}));
}

TEST(Binding, BadInputOfOneRankLeavesTheGroupUsable) {
  const Engine engine = mlp("tp=2");
  const Arrays inputs = engine.random_inputs();
  auto groups = Group::in_process(2);
  std::vector<std::thread> threads;
  for (int rank = 0; rank < 2; ++rank)
    threads.emplace_back([&, rank] {
      Context context(engine, {.rank = rank, .threads = 1});
      context.set_communicator(std::move(groups[static_cast<std::size_t>(rank)]));
      outputs_of(context, engine, inputs);
      if (rank == 1) {
        EXPECT_EQ(thrown([&] { context.run({}, {}); }).code(), ErrorCode::invalid_argument);
      }
      outputs_of(context, engine, inputs);
    });
  for (auto& thread : threads) thread.join();
}

TEST(Context, RefusesWhatDoesNotFit) {
  const Engine engine = mlp("tp=2");
  EXPECT_EQ(thrown([&] { Context(engine, {.rank = 2}); }).code(), ErrorCode::invalid_argument);
  Context context(engine, {.rank = 1});
  auto three = Group::in_process(3), two = Group::in_process(2);
  EXPECT_NE(std::string(thrown([&] { context.set_communicator(std::move(three[1])); }).what()).find("is for 2 ranks, the group has 3"),
            std::string::npos);
  EXPECT_EQ(thrown([&] { context.set_communicator(std::move(two[0])); }).code(), ErrorCode::mismatch);
  EXPECT_NE(std::string(thrown([&] { outputs_of(context, engine, engine.random_inputs()); }).what()).find("no group is bound"),
            std::string::npos);
}

TEST(Context, RankThatDoesNotRunIsNamed) {
  const Engine engine = mlp("tp=2");
  auto groups = Group::in_process(2);
  Context context(engine, {.rank = 0, .rendezvous_deadline_s = 0.2});
  context.set_communicator(std::move(groups[0]));
  const Error error = thrown([&] { outputs_of(context, engine, engine.random_inputs()); });
  EXPECT_EQ(error.code(), ErrorCode::timeout) << error.what();
  EXPECT_EQ(error.rank(), 1) << error.what();
}

TEST(Context, StopEndsTheWaitForOthers) {
  const Engine engine = mlp("tp=2");
  auto groups = Group::in_process(2);
  Context context(engine, {.rank = 0, .stop = [] { return true; }});
  context.set_communicator(std::move(groups[0]));
  EXPECT_EQ(thrown([&] { outputs_of(context, engine, engine.random_inputs()); }).code(), ErrorCode::interrupted);
}

TEST(Model, ThreadsReadAndWriteWhereTheArraysLie) {
  for (const auto& [mesh, copies] : {std::pair("tp=2", 0), std::pair("dp=2", 0)}) {
    const Engine engine = mlp(mesh);
    Arrays inputs = engine.random_inputs();
    std::vector<std::shared_ptr<std::byte>> given;
    Model model(engine);
    const RankArrays outputs =
        model.run({{inputs.begin()->first, {inputs.begin()->second}}}, [&](const std::string&, DType type, const Shape& shape, int) {
          given.emplace_back(new std::byte[bytes(type, element_count(shape))], std::default_delete<std::byte[]>());
          return given.back();
        });
    ASSERT_EQ(given.size(), 1u);
    EXPECT_EQ(outputs.at(engine.outputs()[0].name).at(0).data.get(), given[0].get());
    EXPECT_EQ(model.last_copies(), copies) << mesh << " " << to_string(inputs.begin()->second.shape);
    const RankArrays wanted = Model(mlp("")).run(inputs);
    const auto* got = reinterpret_cast<const float*>(given[0].get());
    expect_near({got, got + element_count(outputs.begin()->second[0].shape)}, wanted.begin()->second[0]);
  }
}

TEST(Model, OneCallAtATime) {
  const Engine engine = mlp("tp=2");
  Model model(engine);
  const Arrays inputs = engine.random_inputs();
  std::string said;
  model.run({{inputs.begin()->first, {inputs.begin()->second}}}, [&](const std::string&, DType type, const Shape& shape, int) {
    std::thread([&] { said = thrown([&] { model.run(inputs); }).what(); }).join();
    return std::shared_ptr<std::byte>(new std::byte[bytes(type, element_count(shape))], std::default_delete<std::byte[]>());
  });
  EXPECT_NE(said.find("one thread at a time"), std::string::npos);
}

}  // namespace
}  // namespace tandem
