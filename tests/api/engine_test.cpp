// Engine files through the public API: the same results as the engine in memory, refits, and what is refused.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>

#include "api/models.h"
#include "api/run/engine_data.h"
#include "comm/ranks.h"
#include "core/check.h"
#include "import/onnx/import.h"
#include "ops/libraries_cpu.h"
#include "passes/evaluate.h"
#include "runtime/context.h"
#include "support/temporary_folder.h"
#include "support/thrown.h"
#include "tandem/tandem.h"

namespace tandem {
namespace {

using testing::expect_says;
using testing::model_path;
using testing::on;
using testing::TemporaryFolder;
using testing::thrown;
using Json = nlohmann::json;

RankArrays run(const Engine& engine, const Arrays& inputs, bool processes = false) {
  TeamOptions options;
  if (processes) options.rank_command = {"/proc/self/exe", "rank"};
  options.threads = 1;
  return Model(engine, options).run(inputs);
}

void expect_same_bits(const RankArrays& a, const RankArrays& b) {
  ASSERT_EQ(a.size(), b.size());
  for (const auto& [name, list] : a) {
    const auto& other = b.at(name);
    ASSERT_EQ(list.size(), other.size()) << name;
    for (std::size_t r = 0; r < list.size(); ++r) {
      EXPECT_EQ(list[r].shape, other[r].shape);
      EXPECT_EQ(std::memcmp(list[r].data.get(), other[r].data.get(), list[r].size_bytes()), 0) << name;
    }
  }
}

double largest_difference(const Tensor& a, const Tensor& b) {
  EXPECT_EQ(a.shape(), b.shape());
  double worst = 0;
  for (std::int64_t i = 0; i < a.count(); ++i) worst = std::max(worst, std::fabs(a.at(i) - b.at(i)));
  return worst;
}

class SavedEngine : public ::testing::TestWithParam<std::tuple<const char*, const char*, bool>> {};

TEST_P(SavedEngine, GivesTheSameBitsAsTheOneInMemory) {
  const auto& [name, mesh, processes] = GetParam();
  const TemporaryFolder folder;
  const std::string path = folder.path() / "model.tandem";
  const Engine built = build(model_path(name), on(mesh));
  built.save(path);
  EXPECT_EQ(folder.file_count(), 1u);
  EXPECT_TRUE(is_engine_file(path));
  const Engine loaded = load_engine(path);
  EXPECT_EQ(loaded.describe(), built.describe());
  EXPECT_TRUE(loaded.has_weights());
  const Arrays inputs = built.random_inputs(3);
  expect_same_bits(run(loaded, inputs, processes), run(built, inputs));
}

INSTANTIATE_TEST_SUITE_P(Engines, SavedEngine,
                         ::testing::Values(std::tuple{"mlp_legacy", "", false}, std::tuple{"mlp_legacy", "dp=2", true},
                                           std::tuple{"bert_legacy", "tp=2", true}, std::tuple{"gpt2_legacy", "tp=2", false},
                                           std::tuple{"llama_dynamo23_f16", "tp=2", false},
                                           std::tuple{"bert_dynamo23", "dp=2,tp=2", true}));

TEST(EngineFiles, OtherLibrariesChooseAgainOrAreRefused) {
  const TemporaryFolder folder;
  const std::string path = folder.path() / "model.tandem";
  const Engine built = build(model_path("mlp_legacy"), on("tp=2"));
  Plan plan = built.data().plan();
  plan.built_with["onednn"] = "0.0.1";
  int affected = 0;
  for (Step& step : plan.programs.at(0).steps)
    if (step.op == "MatMul") step.kernel = "bygone_matmul", ++affected;
  ASSERT_GT(affected, 0);
  auto data = std::make_shared<EngineData>(built.data());
  data->plans = {std::make_shared<Plan>(plan)};
  Engine(data).save(path);
  const Engine loaded = load_engine(path);
  const std::string notice = loaded.notices().back();
  EXPECT_NE(
      notice.find(fmt::format("onednn 0.0.1, here {}", library_versions().contains("onednn") ? library_versions().at("onednn") : "none")),
      std::string::npos)
      << notice;
  EXPECT_NE(notice.find(fmt::format("{} steps", affected)), std::string::npos) << notice;
  const Arrays inputs = built.random_inputs(3);
  for (const bool processes : {false, true}) expect_same_bits(run(loaded, inputs, processes), run(built, inputs));
  const Error refused = thrown([&] { load_engine(path, {.strict = true}); });
  EXPECT_EQ(refused.code(), ErrorCode::mismatch);
  expect_says(refused, "onednn 0.0.1");
  built.save(path);
  EXPECT_EQ(load_engine(path, {.strict = true}).notices(), built.notices());
}

TEST(EngineFiles, PlansSayWhatTheyWereBuiltWith) {
  BuildOptions options = on("tp=2");
  const Json plain = Json::parse(build(model_path("mlp_legacy"), options).describe());
  for (const char* key : {"compiler", "vectors", "target"}) EXPECT_FALSE(plain["built_with"][key].get<std::string>().empty()) << key;
  EXPECT_FALSE(plain["built_with"].contains("options"));
  EXPECT_FALSE(plain["built_with"].contains("cpu"));  // by rule: the same on every machine
  EXPECT_FALSE(plain["exact"].get<bool>());
  for (const auto& [library, version] : library_versions()) EXPECT_EQ(plain["built_with"][library], version);
  options.exact = options.timed = true;
  options.dtype = "f16";
  const Json chosen = Json::parse(build(model_path("mlp_legacy"), options).describe());
  EXPECT_EQ(chosen["built_with"]["options"], "exact timed dtype=f16");
  EXPECT_TRUE(chosen["built_with"].contains("cpu"));
  EXPECT_TRUE(chosen["exact"].get<bool>());
}

TEST(EngineFiles, PerRankProgramsGoIntoOneFilePerRank) {
  const TemporaryFolder folder;
  BuildOptions options;
  options.ranks = 2;
  const Engine built = build(std::string(TANDEM_MODELS) + "/sharded_mlp_rank{rank}.onnx", options);
  expect_says(thrown([&] { built.save(folder.path() / "one.tandem"); }), "{rank}");
  expect_says(thrown([&] { build(model_path("mlp_legacy")).save(folder.path() / "{rank}.tandem"); }), "share one engine file");
  EXPECT_EQ(folder.file_count(), 0u);
  const std::string path = folder.path() / "mlp{rank}.tandem";
  built.save(path);
  EXPECT_EQ(folder.file_count(), 2u);
  const Arrays inputs = built.random_inputs();
  expect_same_bits(run(load_engine(path), inputs), run(built, inputs));
  std::filesystem::remove(folder.path() / "mlp1.tandem");
  build(model_path("mlp_legacy"), on("dp=4")).save(folder.path() / "mlp1.tandem");
  const Error other = thrown([&] { load_engine(path); });
  EXPECT_EQ(other.code(), ErrorCode::mismatch);
  expect_says(other, "is for 4 ranks, the file of rank 0 for 2");
}

TEST(EngineFiles, AnotherMeshOrWorldIsRefusedNamingBothSides) {
  const TemporaryFolder folder;
  const std::string path = folder.path() / "e.tandem";
  build(model_path("mlp_legacy"), on("dp=2")).save(path);
  EXPECT_EQ(open_model(path).ranks(), 2);
  EXPECT_EQ(open_model(path, on("dp=2")).mesh(), "dp=2");
  const Error mesh = thrown([&] { open_model(path, on("dp=4")); });
  EXPECT_EQ(mesh.code(), ErrorCode::mismatch);
  expect_says(mesh, "is built for mesh dp=2, asked for is dp=4");
  BuildOptions three;
  three.ranks = 3;
  expect_says(thrown([&] { open_model(path, three); }), "is built for 2 ranks, asked for are 3");
  // At the level of a rank that joins somebody's group.
  const Engine engine = load_engine(path);
  run_ranks(3, [&](Group& group) {
    RankContext context(RankEngine::load(engine.data().plans[0], 0, engine.data().weights), {});
    expect_says(thrown([&] { context.set_communicator(&group); }), "the engine is for 2 ranks, the group has 3");
  });
}

TEST(EngineFiles, AnotherPlanOnOneRankIsRefusedBeforeAnythingRuns) {
  const Engine engines[] = {build(model_path("bert_legacy"), on("tp=2")), build(model_path("gpt2_legacy"), on("tp=2"))};
  std::atomic<int> refused = 0;
  const auto join = [&](Group& group) {
    const EngineData& mine = engines[group.rank()].data();
    RankContext context(RankEngine::load(mine.plans[0], group.rank(), mine.weights), {});
    context.set_communicator(&group);
    for (const Binding& input : context.program().inputs) context.set_input_shape(input.name, Shape(input.type.dims.size(), 2));
    const Error error = thrown([&] { context.prepare(); });
    EXPECT_EQ(error.code(), ErrorCode::mismatch);
    expect_says(error, fmt::format("ranks 0 and 1 disagree on the plan: {:x} and {:x}", digest(engines[0].data().plan()),
                                   digest(engines[1].data().plan())));
    ++refused;
  };
  run_ranks(2, join);
  EXPECT_EQ(refused, 2);
}

// Every source of a model, replaced; and the oracle: plain evaluation of the model with them.
struct Replaced {
  std::unique_ptr<Module> module;
  Arrays tensors;
};

Replaced replace_sources(const std::string& name, double factor) {
  Replaced out{import_onnx(model_path(name), {.refittable = true}), {}};
  const std::map<std::string, Tensor> before = out.module->sources();
  for (const auto& [source, tensor] : before) {
    if (!is_float(tensor.dtype())) continue;
    std::vector<double> values = tensor.to_doubles();
    for (double& v : values) v *= factor;
    const Tensor fresh = Tensor::of(tensor.dtype(), tensor.shape(), values);
    out.module->add_source(source, fresh);
    out.tensors[source] = to_array(fresh);
  }
  return out;
}

class Refit : public ::testing::TestWithParam<std::tuple<const char*, const char*, bool>> {};

TEST_P(Refit, ByNameEqualsTheModelWithThoseWeights) {
  const auto& [name, mesh, stripped] = GetParam();
  const TemporaryFolder folder;
  const std::string path = folder.path() / "e.tandem", weights = folder.path() / "w.safetensors", out = folder.path() / "new.tandem";
  BuildOptions options = on(mesh);
  options.refittable = true;
  const Engine built = build(model_path(name), options);
  built.save(path, {.weights = !stripped});
  const Engine before = load_engine(path);
  EXPECT_EQ(before.has_weights(), !stripped);
  const Arrays inputs = built.random_inputs(1);
  if (stripped) {
    const Error error = thrown([&] { run(before, inputs); });
    EXPECT_EQ(error.code(), ErrorCode::mismatch);
    expect_says(error, "was written without weights");
    expect_says(thrown([&] { before.save(folder.path() / "x.tandem"); }), "has no weights");
  }

  const Replaced fresh = replace_sources(name, 0.75);
  write_arrays(weights, fresh.tensors);
  const RefitReport report = refit(path, {weights}, out);
  EXPECT_GT(report.refitted, 0);
  testing::Tensors tensors;
  SymbolValues symbols = testing::symbols_of(fresh.module->main());
  for (const auto& input : fresh.module->main().inputs()) {
    tensors[input->name()] = to_tensor(inputs.at(input->name()));
    for (std::size_t d = 0; d < input->type.dims.size(); ++d)
      if (input->type.dims[d].is_symbol()) symbols[input->type.dims[d].to_string()] = tensors[input->name()].shape()[d];
  }
  const testing::Tensors expected = testing::evaluate(fresh.module->main(), tensors, symbols);
  const RankArrays got = run(load_engine(out), inputs);
  for (const auto& [output, want] : expected) EXPECT_LE(largest_difference(to_tensor(got.at(output).at(0)), want), 1e-4) << output;
}

INSTANTIATE_TEST_SUITE_P(Models, Refit,
                         ::testing::Values(std::tuple{"mlp_legacy", "", true}, std::tuple{"bert_legacy", "tp=2", true},
                                           std::tuple{"bert_legacy", "tp=2", false}, std::tuple{"gpt2_legacy", "tp=2", true},
                                           std::tuple{"llama_legacy", "dp=2", true}));

TEST(Refits, TheModelFileItselfBringsTheWeightsBack) {
  const TemporaryFolder folder;
  const std::string path = folder.path() / "e.tandem";
  BuildOptions options = on("tp=2");
  options.refittable = true;
  const Engine built = build(model_path("gpt2_legacy"), options);
  built.save(path, {.weights = false});
  refit(path, {model_path("gpt2_legacy")}, path);  // in place
  EXPECT_EQ(folder.file_count(), 1u);
  const Arrays inputs = built.random_inputs(2);
  expect_same_bits(run(load_engine(path), inputs), run(built, inputs));
}

TEST(Refits, WrongWeightsAreNamedAndNothingIsWritten) {
  const TemporaryFolder folder;
  const std::string full = folder.path() / "full.tandem", bare = folder.path() / "bare.tandem", weights = folder.path() / "w.safetensors";
  const std::string out = folder.path() / "out.tandem";
  BuildOptions options = on("tp=2");
  options.refittable = true;
  const Engine built = build(model_path("bert_legacy"), options);
  built.save(full);
  built.save(bare, {.weights = false});
  const auto refuse = [&](const std::string& engine, const Arrays& given) {
    write_arrays(weights, given);
    const Error error = thrown([&] { refit(engine, {weights}, out); });
    EXPECT_FALSE(std::filesystem::exists(out));
    return error;
  };
  const Arrays good = replace_sources("bert_legacy", 0.5).tensors;
  ASSERT_GT(good.size(), 4u);
  Arrays one_missing = good;
  const std::string name = one_missing.rbegin()->first;
  one_missing.erase(name);
  const Error missing = refuse(bare, one_missing);
  EXPECT_EQ(missing.code(), ErrorCode::mismatch);
  expect_says(missing, "the files lack");
  expect_says(missing, name);

  Arrays wrong_type = good;
  wrong_type[name] = to_array(to_tensor(good.at(name)).converted(DType::f16));
  expect_says(refuse(full, wrong_type), fmt::format("weight '{}' is f16", name));
  Arrays wrong_shape = good;
  wrong_shape[name] = to_array(Tensor(DType::f32, {3, 5, 7}));
  expect_says(refuse(full, wrong_shape), fmt::format("weight '{}' is f32[3,5,7], expected f32", name));
  expect_says(refuse(full, {{"stranger", to_array(Tensor(DType::f32, {1}))}}), "none of the 1 tensors given is a weight of the engine");
  write_arrays(weights, good);
  expect_says(thrown([&] { refit(full, {weights, weights}, out); }), "is in another weight file too");
  EXPECT_EQ(thrown([&] { refit(weights, {weights}, out); }).code(), ErrorCode::invalid_engine);
  EXPECT_EQ(folder.file_count(), 3u);
}

TEST(Building, AStopRequestLeavesNothingBehind) {
  const TemporaryFolder folder;
  int calls = 0;
  for (int stop_at = 0; stop_at < 400; stop_at += 19) {
    calls = 0;
    const ProgressCallback progress = [&](std::string_view, double done) {
      EXPECT_GE(done, 0);
      EXPECT_LE(done, 1);
      if (calls++ == stop_at) fail(ErrorCode::interrupted, "stopped");
    };
    BuildOptions options = on("tp=2");
    options.progress = progress;
    try {
      build(model_path("bert_legacy"), options).save(folder.path() / "e.tandem", {.progress = progress});
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::interrupted);
      EXPECT_EQ(folder.file_count(), 0u) << stop_at;
      continue;
    }
    EXPECT_LE(calls, stop_at);
    EXPECT_EQ(folder.file_count(), 1u);
    return;
  }
  FAIL() << "the build never came to its end";
}

Json steps_of(const Engine& engine) { return Json::parse(engine.describe()).at("steps"); }

TEST(Timing, TheFastestCandidateIsChosenAndRemembered) {
  const TemporaryFolder folder;
  BuildOptions options = on("tp=2");
  options.timed = true;
  options.threads = 1;
  options.timing_cache = folder.path() / "times.json";
  const Engine timed = build(model_path("bert_legacy"), options);
  int chosen = 0;
  for (const Json& step : steps_of(timed)) {
    const double time = step.at("microseconds");
    if (time == 0) continue;
    ++chosen;
    double fastest = 1e300;
    for (const Json& candidate : step.at("candidates"))
      if (candidate.at("microseconds") > 0) fastest = std::min(fastest, candidate.at("microseconds").get<double>());
    EXPECT_EQ(time, fastest) << step.dump();
  }
  // A cache that says otherwise turns every choice round, so it is read; and its times stand in the plan.
  Json cache = Json::parse(std::ifstream(options.timing_cache));
  Json& times = cache.at("microseconds");
  int turned = 0;
  for (auto& [key, time] : times.items()) {
    const bool plain = key.find("highway_matmul") != std::string::npos;
    turned += plain;
    time = plain ? 1.5 : 3.5;
  }
  std::ofstream(options.timing_cache) << cache.dump();
  const Engine again = build(model_path("bert_legacy"), options);
  int of_cache = 0;
  for (const Json& step : steps_of(again))
    if (step.at("op") == "MatMul" && step.at("microseconds") == 1.5) of_cache += step.at("kernel") == "highway_matmul";
  EXPECT_EQ(of_cache > 0, turned > 0);
#ifdef TANDEM_ONEDNN
  EXPECT_GT(chosen, 0);
  EXPECT_GT(turned, 0);
#endif
  EXPECT_EQ(Json::parse(std::ifstream(options.timing_cache)), cache);  // nothing new was measured
  const Arrays inputs = timed.random_inputs();
  const RankArrays a = run(timed, inputs), b = run(again, inputs);
  for (const auto& [name, list] : a) EXPECT_LE(largest_difference(to_tensor(list[0]), to_tensor(b.at(name)[0])), 1e-4) << name;
}

TEST(Timing, WithoutItBuildsAreEqualToTheBit) {
  EXPECT_EQ(build(model_path("llama_legacy"), on("tp=2")).describe(), build(model_path("llama_legacy"), on("tp=2")).describe());
}

TEST(Timing, AFileThatIsNoCacheStaysAsItIs) {
  const TemporaryFolder folder;
  for (const char* text :
       {"", "thesis", "[]", "{\"tandem_timing_cache\":2,\"microseconds\":{}}", "{\"tandem_timing_cache\":1,\"microseconds\":{\"a\":-1}}"}) {
    const std::string path = folder.path() / "notes.txt";
    std::ofstream(path) << text;
    BuildOptions options;
    options.timing_cache = path;
    const Error error = thrown([&] { build(model_path("mlp_legacy"), options); });
    EXPECT_EQ(error.code(), ErrorCode::invalid_argument);
    expect_says(error, "is no timing cache");
    std::ifstream file(path);
    EXPECT_EQ(std::string(std::istreambuf_iterator<char>(file), {}), text);
  }
}

TEST(EngineBytes, AreTheFile) {
  const Engine engine = build(model_path("mlp_dynamo"), on("tp=2"));
  const TemporaryFolder folder;
  const std::string path = folder.path() / "mlp.tandem";
  engine.save(path);
  const Array bytes = engine.to_bytes();
  std::ifstream file(path, std::ios::binary);
  const std::string text((std::istreambuf_iterator<char>(file)), {});
  ASSERT_EQ(bytes.size_bytes(), text.size());
  EXPECT_EQ(std::memcmp(bytes.data.get(), text.data(), text.size()), 0);
  const Arrays inputs = engine.random_inputs();
  const RankArrays expected = run(engine, inputs);
  for (const std::size_t offset : {std::size_t{0}, std::size_t{1}}) {  // aligned and not
    const std::shared_ptr<std::byte> memory(static_cast<std::byte*>(::operator new(text.size() + 1, std::align_val_t(64))),
                                            [](std::byte* p) { ::operator delete(p, std::align_val_t(64)); });
    std::memcpy(memory.get() + offset, text.data(), text.size());
    const Engine loaded = load_engine(Array{DType::u8, bytes.shape, {memory, memory.get() + offset}});
    expect_same_bits(run(loaded, inputs), expected);
    expect_same_bits(run(loaded, inputs, true), expected);
  }
  EXPECT_LT(engine.to_bytes({.weights = false}).size_bytes(), bytes.size_bytes());
  EXPECT_EQ(thrown([&] { load_engine(Array{DType::u8, {100}, bytes.data}); }).code(), ErrorCode::invalid_engine);
}

TEST(Ports, TellWhatOneRankHolds) {
  const Engine engine = build(model_path("mlp_dynamo"), on("dp=2"));
  const Port in = engine.inputs().at(0);
  EXPECT_EQ(in.shape.at(1), "32");
  EXPECT_EQ(in.local_shape.at(1), "32");
  ASSERT_EQ(in.local_range.size(), 3u);
  EXPECT_LE(in.local_range[0], in.local_range[1]);
  EXPECT_LT(in.local_range[1], in.local_range[2]);
  EXPECT_GT(engine.activation_bytes(), 0u);
  EXPECT_EQ(engine.refittable(), engine.describe().find("\"refittable\":true") != std::string::npos);
}

}  // namespace
}  // namespace tandem
