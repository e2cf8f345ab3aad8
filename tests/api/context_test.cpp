// Ranks that the caller runs itself, and memory of the caller that is used where it lies.
#include "tandem/context.h"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmath>
#include <cstdlib>
#include <cstring>
#include <thread>

#include "tandem/tandem.h"

namespace tandem {
namespace {

std::string model_path(const std::string& name) { return std::string(TANDEM_MODELS) + "/" + name + ".onnx"; }

Engine mlp(const std::string& mesh) {
  BuildOptions options;
  options.mesh = mesh;
  return build(model_path("mlp_dynamo"), options);
}

template <typename F>
Error thrown(F f) {
  try {
    f();
  } catch (const Error& error) {
    return error;
  }
  ADD_FAILURE() << "nothing was thrown";
  return Error(ErrorCode::internal, "nothing was thrown");
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
  for (std::size_t i = 0; i < engine.outputs().size(); ++i) outputs.emplace_back(static_cast<std::size_t>(element_count(context.output_shape(i))));
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

TEST(Context, RanksOfThisProcess) {
  const Engine engine = mlp("tp=2");
  const Arrays inputs = engine.random_inputs();
  const RankArrays wanted = Model(engine).run(inputs);
  const auto communicators = Communicator::in_process(2);
  std::vector<std::thread> threads;
  for (int rank = 0; rank < 2; ++rank)
    threads.emplace_back([&, rank] {
      Context context(engine, {.rank = rank, .threads = 1});
      context.set_communicator(communicators[static_cast<std::size_t>(rank)]);
      for (int i = 0; i < 3; ++i) expect_near(outputs_of(context, engine, inputs).at(0), wanted.at(engine.outputs()[0].name).at(0));
      context.set_communicator(communicators[static_cast<std::size_t>(rank)]);  // again: another group of the same ranks
      expect_near(outputs_of(context, engine, inputs).at(0), wanted.at(engine.outputs()[0].name).at(0));
    });
  for (auto& thread : threads) thread.join();
}

TEST(Context, RanksOfOtherProcesses) {
  const Engine engine = mlp("tp=2");
  const Arrays inputs = engine.random_inputs();
  const RankArrays wanted = Model(engine).run(inputs);
  const std::string name = "context_test." + std::to_string(::getpid());
  const auto run = [&](int rank) {
    Context context(engine, {.rank = rank, .threads = 1});
    context.set_communicator(Communicator::on_host(name, rank, 2));
    const auto outputs = outputs_of(context, engine, inputs);
    const auto* values = reinterpret_cast<const float*>(wanted.at(engine.outputs()[0].name).at(0).data.get());
    float worst = 0;
    for (std::size_t i = 0; i < outputs[0].size(); ++i) worst = std::max(worst, std::abs(outputs[0][i] - values[i]));
    return worst < 1e-5F ? 0 : 1;
  };
  const pid_t child = ::fork();
  if (child == 0) {
    int status = 2;
    try {
      status = run(1);
    } catch (const std::exception&) {
    }
    ::_exit(status);
  }
  EXPECT_EQ(run(0), 0);
  int status = -1;
  ::waitpid(child, &status, 0);
  EXPECT_EQ(status, 0);
}

TEST(Context, RefusesWhatDoesNotFit) {
  const Engine engine = mlp("tp=2");
  EXPECT_EQ(thrown([&] { Context(engine, {.rank = 2}); }).code(), ErrorCode::invalid_argument);
  Context context(engine, {.rank = 1});
  EXPECT_EQ(thrown([&] { context.set_communicator(Communicator::in_process(3)[1]); }).code(), ErrorCode::mismatch);
  EXPECT_EQ(thrown([&] { context.set_communicator(Communicator::in_process(2)[0]); }).code(), ErrorCode::mismatch);
  EXPECT_NE(std::string(thrown([&] { outputs_of(context, engine, engine.random_inputs()); }).what()).find("no group is bound"), std::string::npos);
}

TEST(Context, MissingRankIsNamed) {
  const Engine engine = mlp("tp=2");
  const Arrays inputs = engine.random_inputs();
  for (const bool here : {true, false}) {
    Context context(engine, {.rank = 0, .rendezvous_deadline_s = 0.2});
    context.set_communicator(here ? Communicator::in_process(2)[0] : Communicator::on_host("context_test.missing", 0, 2));
    const Error error = thrown([&] { outputs_of(context, engine, inputs); });
    EXPECT_EQ(error.code(), ErrorCode::timeout) << error.what();
    EXPECT_EQ(error.rank(), 1) << error.what();
  }
}

TEST(Context, StopEndsTheWaitForOthers) {
  const Engine engine = mlp("tp=2");
  Context context(engine, {.rank = 0, .stop = [] { return true; }});
  context.set_communicator(Communicator::in_process(2)[0]);
  EXPECT_EQ(thrown([&] { outputs_of(context, engine, engine.random_inputs()); }).code(), ErrorCode::interrupted);
}

TEST(Communicator, FromTheEnvironment) {
  const std::vector<const char*> names = {"RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "SLURM_PROCID"};
  for (const char* name : names) ::unsetenv(name);
  EXPECT_EQ(thrown([] { Communicator::from_environment(); }).code(), ErrorCode::invalid_argument);
  ::setenv("RANK", "1", 1);
  ::setenv("WORLD_SIZE", "2", 1);
  ::setenv("MASTER_PORT", "29500", 1);
  const Communicator made = Communicator::from_environment();
  EXPECT_EQ(made.rank(), 1);
  EXPECT_EQ(made.size(), 2);
  ::setenv("LOCAL_WORLD_SIZE", "1", 1);
  EXPECT_EQ(thrown([] { Communicator::from_environment(); }).code(), ErrorCode::unsupported);
  ::setenv("LOCAL_WORLD_SIZE", "x", 1);
  EXPECT_NE(std::string(thrown([] { Communicator::from_environment(); }).what()).find("LOCAL_WORLD_SIZE is 'x'"), std::string::npos);
  for (const char* name : names) ::unsetenv(name);
}

TEST(Model, ThreadsReadAndWriteWhereTheArraysLie) {
  for (const auto& [mesh, copies] : {std::pair("tp=2", 0), std::pair("dp=2", 0)}) {
    const Engine engine = mlp(mesh);
    Arrays inputs = engine.random_inputs();
    std::vector<std::shared_ptr<std::byte>> given;
    Model model(engine);
    const RankArrays outputs = model.run({{inputs.begin()->first, {inputs.begin()->second}}}, [&](const std::string&, DType type, const Shape& shape, int) {
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
