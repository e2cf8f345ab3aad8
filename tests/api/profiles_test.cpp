// Engines with several optimization profiles: programs, contexts that choose one, ranks that must agree, what is refused.
#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>
#include <functional>
#include <nlohmann/json.hpp>
#include <set>
#include <thread>

#include "api/run/engine_data.h"
#include "ops/ops.h"
#include "support/temporary_folder.h"
#include "support/thrown.h"
#include "tandem/tandem.h"

namespace tandem {
namespace {

using Json = nlohmann::json;
using testing::TemporaryFolder;
using testing::thrown;

const std::string kModel = std::string(TANDEM_MODELS) + "/mlp_legacy.onnx";  // x f32[batch,32] → y f32[batch,16]

BuildOptions two_profiles(const std::string& mesh = "") {
  BuildOptions options;
  options.mesh = mesh;
  options.profiles = {{{"x", "1x32:1x32:4x32"}}, {{"x", "2x32:64x32:256x32"}}};
  return options;
}

Engine one_profile(const std::string& mesh = "") {
  BuildOptions options;
  options.mesh = mesh;
  options.shapes["x"] = "1x32:8x32:256x32";
  return build(kModel, options);
}

std::vector<float> rows(std::int64_t count) {
  std::vector<float> x(static_cast<std::size_t>(count) * 32);
  for (std::size_t i = 0; i < x.size(); ++i) x[i] = static_cast<float>(i % 23) / 16 - 0.7f;
  return x;
}

std::vector<float> run(Context& context, std::int64_t count) {
  const std::vector<float> x = rows(count);
  context.set_input_shape(0, {count, 32});
  std::vector<float> y(static_cast<std::size_t>(element_count(context.output_shape(0))), -1.0f);
  const void* const in[] = {x.data()};
  void* const out[] = {y.data()};
  context.run(in, out);
  return y;
}

std::vector<float> run(Model& model, std::int64_t count) {
  const auto x = std::make_shared<std::vector<float>>(rows(count));
  const Array array{DType::f32, {count, 32}, {x, reinterpret_cast<const std::byte*>(x->data())}};
  const RankArrays outputs = model.run(Arrays{{"x", array}});
  const Array& y = outputs.at("y").at(0);
  const auto* data = reinterpret_cast<const float*>(y.data.get());
  return {data, data + element_count(y.shape)};
}

void expect_near(const std::vector<float>& got, const std::vector<float>& want) {
  ASSERT_EQ(got.size(), want.size());
  for (std::size_t i = 0; i < want.size(); ++i) ASSERT_NEAR(got[i], want[i], 1e-5) << i;
}

// Of the kernels that can multiply, the first by name is the fastest for one row, the last for 64: so the file says that is given to a
// build.
struct Crafted {
  explicit Crafted(const std::string& mesh = "") {
    const std::string path = (folder.path() / "times.json").string();
    BuildOptions options = two_profiles(mesh);
    options.timed = true;
    options.timing_cache = path;
    build(kModel, options);
    Json cache = Json::parse(std::ifstream(path));
    std::set<std::string> names;
    for (const auto& [key, time] : cache["microseconds"].items())
      for (const std::string name : {"highway_matmul", "onednn_matmul", "plain"})
        if (key.find(" " + name + " ranks") != std::string::npos && key.find("f32[64,") != std::string::npos) names.insert(name);
    if (names.size() < 2) return;
    few = *names.begin(), many = *names.rbegin();
    for (auto& [key, time] : cache["microseconds"].items()) {
      const bool one_row = key.find(" f32[1,") != std::string::npos;
      time = key.find(" " + (one_row ? few : many) + " ranks") != std::string::npos ? 1 : 1000;
    }
    std::ofstream(path) << cache.dump();
    engine.emplace(build(kModel, options));
  }
  TemporaryFolder folder;
  std::string few, many;  // names of kernels; empty where there is one only
  std::optional<Engine> engine;
};

constexpr const char* kNoChoice = "this build has one kernel that multiplies";

TEST(Profiles, EachHasKernelsForItsTypicalShapesAndTheWeightsAreThereOnce) {
  const Crafted crafted;
  if (!crafted.engine) GTEST_SKIP() << kNoChoice;
  const Plan& plan = crafted.engine->data().plan();
  ASSERT_EQ(plan.programs.size(), 2u);
  for (std::size_t p = 0; p < 2; ++p)
    for (const Step& step : plan.programs[p].steps)
      EXPECT_TRUE(step.op != "MatMul" || step.kernel == (p == 0 ? crafted.few : crafted.many)) << p;
  EXPECT_EQ(plan.weights.size(), one_profile().data().plan().weights.size());
  const std::string path = (crafted.folder.path() / "two.tandem").string();
  crafted.engine->save(path);
  const Engine loaded = load_engine(path);
  EXPECT_EQ(loaded.profiles(), 2);
  EXPECT_EQ(loaded.inputs(0).at(0).range, (std::vector<Shape>{{1, 32}, {1, 32}, {4, 32}}));
  EXPECT_EQ(loaded.inputs(1).at(0).range, (std::vector<Shape>{{2, 32}, {64, 32}, {256, 32}}));
  EXPECT_EQ(loaded.outputs(1).at(0).range, (std::vector<Shape>{{2, 16}, {64, 16}, {256, 16}}));
  EXPECT_EQ(loaded.random_inputs(0, 1).at("x").shape, (Shape{64, 32}));
  EXPECT_EQ(thrown([&] { loaded.inputs(2); }).code(), ErrorCode::invalid_argument);
  EXPECT_EQ(thrown([&] { loaded.random_inputs(0, -1); }).code(), ErrorCode::invalid_argument);

  const Json small = Json::parse(loaded.describe()), large = Json::parse(loaded.describe({{"batch", 100}}));
  EXPECT_EQ(small["profile"], 0);
  EXPECT_EQ(large["profile"], 1);
  EXPECT_EQ(small["profiles"][1]["symbols"]["batch"], Json::array({2, 64, 256}));
  EXPECT_TRUE(small["profiles"][0]["steps"].empty());
  ASSERT_FALSE(small["profiles"][1]["steps"].empty());
  EXPECT_EQ(small["profiles"][1]["steps"][0]["kernel"], crafted.many);
  EXPECT_EQ(small["profiles"][1]["steps"][0]["instead_of"], crafted.few);
  EXPECT_LT(small["profiles"][0]["max_activation_bytes"], small["profiles"][1]["max_activation_bytes"]);
}

TEST(Profiles, ProgramsShareWhatKernelsHavePacked) {
  BuildOptions options = two_profiles();
  options.kernels = {"highway_matmul"};
  const Engine two = build(kModel, options);
  options.profiles.clear();
  EXPECT_EQ(two.data().rank_engine(0)->weight_bytes(), build(kModel, options).data().rank_engine(0)->weight_bytes());
}

TEST(Profiles, AContextChoosesOne) {
  const Crafted crafted;
  if (!crafted.engine) GTEST_SKIP() << kNoChoice;
  const Engine plain = one_profile();
  Context reference(plain), context(*crafted.engine);
  std::set<std::string> kernels;
  context.set_profiler([&](const StepTime& step) {
    if (step.op == "MatMul") kernels.insert(step.kernel);
  });
  const auto runs_by = [&](std::int64_t count, const std::string& kernel) {
    kernels.clear();
    expect_near(run(context, count), run(reference, count));
    EXPECT_EQ(kernels, std::set<std::string>{kernel}) << count;
  };
  EXPECT_EQ(context.profile(), 0);
  runs_by(4, crafted.few);
  const Error outside = thrown([&] { run(context, 5); });
  EXPECT_EQ(outside.code(), ErrorCode::invalid_argument);
  for (const char* word : {"profile 0", "input 'x', dimension 0", "batch = 5", "1 … 4", "profile 1 would"})
    EXPECT_NE(outside.message().find(word), std::string::npos) << outside.message();
  runs_by(1, crafted.few);  // still usable
  context.set_profile(1);
  runs_by(5, crafted.many);
  runs_by(256, crafted.many);
  runs_by(2, crafted.many);
  EXPECT_NE(thrown([&] { run(context, 257); }).message().find("no other would"), std::string::npos);
  context.set_profile(0);
  runs_by(2, crafted.few);
  context.set_profile(-1);
  runs_by(2, crafted.few);
  runs_by(200, crafted.many);
  EXPECT_EQ(context.profile(), 1);
  runs_by(1, crafted.few);
  const Error none = thrown([&] { run(context, 300); });
  EXPECT_NE(none.message().find("profile 0: "), std::string::npos) << none.message();
  EXPECT_NE(none.message().find("profile 1: "), std::string::npos) << none.message();
  for (const int wrong : {2, -2}) EXPECT_EQ(thrown([&] { context.set_profile(wrong); }).code(), ErrorCode::invalid_argument);
  EXPECT_EQ(thrown([&] { Context(*crafted.engine, {.profile = 2}); }).code(), ErrorCode::invalid_argument);
  EXPECT_EQ(Context(*crafted.engine, {.profile = 1}).profile(), 1);
}

TEST(Profiles, MemoryIsToldOfEach) {
  const Engine engine = build(kModel, two_profiles());
  Context context(engine);
  const std::size_t small = context.max_device_memory_bytes(0), large = context.max_device_memory_bytes(1);
  EXPECT_LT(small, large);
  EXPECT_EQ(context.profile(), 0);
  EXPECT_EQ(thrown([&] { context.max_device_memory_bytes(2); }).code(), ErrorCode::invalid_argument);
  const std::unique_ptr<std::byte, decltype(&std::free)> block(static_cast<std::byte*>(std::aligned_alloc(kDeviceAlignment, 1 << 20)),
                                                               &std::free);
  context.set_device_memory(block.get(), small);
  run(context, 4);
  context.set_profile(1);
  EXPECT_EQ(thrown([&] { run(context, 256); }).code(), ErrorCode::out_of_memory);
  context.set_device_memory(block.get(), large);
  run(context, 256);
}

TEST(Profiles, NoneIsChosenWhileACallIsUnderWay) {
  const Engine engine = build(kModel, two_profiles());
  Context* running = nullptr;
  std::string refused;
  Context context(engine, {.stop = [&] {
                    if (running && refused.empty()) refused = thrown([&] { running->set_profile(1); }).message();
                    return false;
                  }});
  running = &context;
  const std::vector<float> got = run(context, 3);
  EXPECT_NE(refused.find("one thread at a time"), std::string::npos) << refused;
  running = nullptr;
  EXPECT_EQ(context.profile(), 0);
  EXPECT_EQ(run(context, 3), got);
}

// `work` of each of two ranks, in threads; what each throws.
std::vector<std::string> on_two_ranks(const std::function<void(int rank, std::shared_ptr<Group> group)>& work) {
  auto groups = Group::in_process(2);
  std::vector<std::string> errors(2);
  std::vector<std::thread> threads;
  for (int rank = 0; rank < 2; ++rank)
    threads.emplace_back([&, rank] {
      try {
        work(rank, std::move(groups[static_cast<std::size_t>(rank)]));
      } catch (const Error& error) {
        errors[static_cast<std::size_t>(rank)] = error.what();
      }
    });
  for (std::thread& thread : threads) thread.join();
  return errors;
}

TEST(Profiles, RanksUseOneTogether) {
  const Crafted crafted("tp=2");
  if (!crafted.engine) GTEST_SKIP() << kNoChoice;
  const Engine plain = one_profile();
  Context reference(plain);
  const std::vector<float> want = run(reference, 3), want_many = run(reference, 100);
  const auto errors = on_two_ranks([&](int rank, const std::shared_ptr<Group>& group) {
    Context context(*crafted.engine, {.rank = rank, .threads = 1});
    context.set_communicator(group);
    for (const int profile : {0, 1, 0, 1, -1}) {
      context.set_profile(profile);
      expect_near(run(context, 3), want);
      if (profile != 0) expect_near(run(context, 100), want_many);
    }
  });
  EXPECT_EQ(errors, std::vector<std::string>(2));
}

TEST(Profiles, RanksThatDifferAreTold) {
  BuildOptions options = two_profiles("tp=2");
  options.profiles.push_back({{"x", "3x32"}});
  const Engine engine = build(kModel, options);
  const auto run_in = [&](int first, int second0, int second1, std::vector<float>* again) {
    return on_two_ranks([&, again](int rank, const std::shared_ptr<Group>& group) {
      Context context(engine, {.rank = rank, .threads = 1, .profile = first < 0 ? rank : first, .rendezvous_deadline_s = 20});
      context.set_communicator(group);
      if (first >= 0) run(context, 3);
      if (first >= 0) context.set_profile(rank == 0 ? second0 : second1);
      const auto use = [&] { run(context, 3); };
      if (!again) return use();
      EXPECT_EQ(thrown(use).code(), ErrorCode::mismatch);
      context.set_profile(2);
      again[rank] = run(context, 3);
    });
  };
  for (const std::string& error : run_in(-1, 0, 0, nullptr)) EXPECT_NE(error.find("the optimization profile"), std::string::npos) << error;
  for (const std::string& error : run_in(0, 1, 0, nullptr))
    EXPECT_NE(error.find("ranks disagree"), std::string::npos) << error;  // one stays
  std::vector<float> again[2];
  EXPECT_EQ(run_in(0, 1, 2, again), std::vector<std::string>(2));  // told, and usable after it
  const Engine plain = one_profile();
  Context reference(plain);
  for (const auto& y : again) expect_near(y, run(reference, 3));
}

class Ranks : public ::testing::TestWithParam<bool> {};

TEST_P(Ranks, OfAModelRunTheProfileThatFits) {
  const Crafted crafted("tp=2");
  if (!crafted.engine) GTEST_SKIP() << kNoChoice;
  TeamOptions team{.threads = 1};
  if (GetParam()) team.rank_command = {"/proc/self/exe", "rank"};
  Model model(*crafted.engine, team);
  const Engine plain = one_profile();
  Context reference(plain);
  for (const std::int64_t count : {1, 100, 4, 5, 256, 2}) {
    expect_near(run(model, count), run(reference, count));
    const auto x = std::make_shared<std::vector<float>>(rows(count));
    const auto ranks = model.profile({{"x", {{DType::f32, {count, 32}, {x, reinterpret_cast<const std::byte*>(x->data())}}}}});
    for (const auto& steps : ranks)
      for (const StepTime& step : steps)
        EXPECT_TRUE(step.op != "MatMul" || step.kernel == (count <= 4 ? crafted.few : crafted.many)) << count;
  }
  const Error none = thrown([&] { run(model, 257); });
  EXPECT_NE(none.message().find("profile 1: input 'x'"), std::string::npos) << none.message();
}

INSTANTIATE_TEST_SUITE_P(Profiles, Ranks, ::testing::Bool(), [](const auto& info) { return info.param ? "Processes" : "Threads"; });

TEST(Profiles, OverlappingOnesAreChosenByTheirTypicalShapes) {
  BuildOptions options;
  options.profiles = {{{"x", "1x32:1x32:256x32"}}, {{"x", "1x32:64x32:256x32"}}};
  const Engine engine = build(kModel, options);
  Context context(engine, {.profile = -1});
  for (const auto& [count, profile] : std::map<std::int64_t, int>{{1, 0}, {8, 0}, {60, 1}, {256, 1}}) {
    run(context, count);
    EXPECT_EQ(context.profile(), profile) << count;
  }
}

TEST(Profiles, WrongOnesAreRefusedByName) {
  const auto refused = [](const std::vector<std::map<std::string, std::string>>& profiles, const std::vector<std::string>& words) {
    BuildOptions options;
    options.profiles = profiles;
    const Error error = thrown([&] { build(kModel, options); });
    EXPECT_EQ(error.code(), ErrorCode::invalid_argument);
    for (const std::string& word : words) EXPECT_NE(error.message().find(word), std::string::npos) << error.message();
  };
  const std::map<std::string, std::string> good = {{"x", "1x32:1x32:4x32"}};
  refused({good, {}}, {"optimization profile 1", "no input"});
  refused({good, {{"x", "4x32:2x32:8x32"}}}, {"optimization profile 1", "'x'", "4:2:8"});
  refused({good, {{"z", "1x32"}}}, {"optimization profile 1", "'z'"});
  refused({{{"x", "1x32x1"}}, good}, {"optimization profile 0", "'x'"});
  refused({good, {{"x", "1x32:2x32"}}}, {"1x32:2x32"});
}

TEST(Profiles, AnEngineFileWhoseProgramsDifferIsRefused) {
  const Engine engine = build(kModel, two_profiles());
  Plan plan = engine.data().plan();
  EXPECT_EQ(plan_from_json(to_json(plan), all_ops()).profiles(), 2u);
  plan.programs[1].inputs[0].name = "other";
  const Error error = thrown([&] { plan_from_json(to_json(plan), all_ops()); });
  EXPECT_EQ(error.code(), ErrorCode::invalid_engine);
  EXPECT_NE(error.message().find("profile 1"), std::string::npos) << error.message();
}

}  // namespace
}  // namespace tandem
