// What Engine::describe says: how values lie over the mesh, layers, memory over time, bytes at given sizes.
#include <gtest/gtest.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>

#include "api/run/describe_program.h"
#include "tandem/tandem.h"

namespace tandem {
namespace {

using Json = nlohmann::json;
using Axes = std::vector<std::vector<std::string>>;

Engine built(const std::string& name, const std::string& mesh, int ranks = 0, std::vector<std::string> disabled_passes = {}) {
  BuildOptions options;
  options.disabled_passes = std::move(disabled_passes);
  options.mesh = mesh;
  options.ranks = ranks;
  return build(std::string(TANDEM_MODELS) + "/" + name + ".onnx", options);
}

Json described(const std::string& name, const std::string& mesh) { return Json::parse(built(name, mesh).describe()); }

// An all-reduce, alone or with the norm that follows it.
bool is_sum(const Json& step) { return step["op"].get<std::string>().starts_with("AllReduce"); }

TEST(Describe, ValuesSayHowTheyLieOverTheMesh) {
  const Json r = described("llama_legacy", "cp=2,tp=2");
  EXPECT_EQ(r["axes"], Json::parse(R"([{"name":"cp","size":2},{"name":"tp","size":2}])"));
  EXPECT_EQ(r["inputs"][0]["split"], Json::parse(R"([[],["cp"]])"));
  int sums = 0;
  for (const Json& step : r["steps"]) {
    if (!is_sum(step)) continue;
    ++sums;
    const Json& before = r["values"][step["operands"][0].get<std::size_t>()];
    const Json& after = r["values"][step["results"][0].get<std::size_t>()];
    EXPECT_EQ(before["partial"], Json::array({"tp"})) << step.dump();
    EXPECT_EQ(after["partial"], Json::array()) << step.dump();
    for (const Json& value : {before, after}) EXPECT_EQ(value["split"], Json::parse(R"([[],["cp"],[]])")) << step.dump();
  }
  EXPECT_EQ(sums, 5);
}

// Two layers, each with two sums over tp, under the names that either exporter gives them. Sums by themselves: with the norm that follows,
// the last of a layer may count as the next one's.
TEST(Describe, StepsBelongToLayers) {
  const std::vector<std::pair<const char*, const char*>> models = {
      {"bert_legacy", "layer"}, {"bert_dynamo23", "layer"}, {"llama_legacy", "layers"}, {"llama_dynamo", "layers"}, {"gpt2_legacy", "h"}};
  for (const auto& [name, word] : models) {
    const Json r = Json::parse(built(name, "tp=2", 0, {"fuse_reduce_norm"}).describe());
    std::map<std::string, int> sums;
    std::set<std::string> layers;
    for (const Json& step : r["steps"]) {
      const std::string layer = step["layer"];
      if (layer.empty()) continue;
      layers.insert(layer.substr(layer.rfind('.') + 1));
      EXPECT_NE(layer.find(word), std::string::npos) << name << ": " << layer;
      sums[layer] += is_sum(step) ? 1 : 0;
    }
    EXPECT_EQ(layers, (std::set<std::string>{"0", "1"})) << name;
    for (const auto& [layer, count] : sums) EXPECT_EQ(count, 2) << name << ": " << layer;
    EXPECT_EQ(r["steps"].front()["layer"], "") << name;
    EXPECT_EQ(r["steps"].back()["layer"], "") << name;
  }
}

TEST(Describe, WeightsSayWhichDimensionIsCut) {
  const Json r = described("bert_legacy", "tp=2");
  int split = 0;
  for (const Json& weight : r["weights"]) {
    std::set<std::string> axes;
    for (const Json& dim : weight["split"]) axes.insert(dim.begin(), dim.end());
    EXPECT_EQ(axes, weight["axes"].get<std::set<std::string>>()) << weight.dump();
    EXPECT_EQ(weight["split"].size(), weight["shape"].size());
    split += !axes.empty();
  }
  EXPECT_GT(split, 8);
}

TEST(Describe, RecipesCarryTheirCuts) {
  const auto source = [](const std::string& name) { return Recipe::from_source(name, DType::f32, {8, 6}); };
  const auto cut = [](RecipePtr of, int axis, const char* symbol, std::int64_t length) {
    return Recipe::slice(std::move(of), axis, Dim::symbol(symbol) * Dim(length), length);
  };
  EXPECT_EQ(split_of(*source("w")), (Axes{{}, {}}));
  EXPECT_EQ(split_of(*Recipe::slice(source("w"), 0, 2, 4)), (Axes{{}, {}}));  // the same part for all
  const RecipePtr rows = cut(source("w"), 0, "@tp", 4);
  EXPECT_EQ(split_of(*rows), (Axes{{"tp"}, {}}));
  EXPECT_EQ(split_of(*Recipe::transpose(rows, {1, 0})), (Axes{{}, {"tp"}}));
  EXPECT_EQ(split_of(*cut(rows, 1, "@ep", 3)), (Axes{{"tp"}, {"ep"}}));
  EXPECT_EQ(split_of(*cut(rows, 0, "@ep", 2)), (Axes{{"tp", "ep"}, {}}));
  EXPECT_EQ(split_of(*Recipe::concat({source("v"), cut(source("w"), 1, "@tp", 3), cut(source("u"), 1, "@tp", 3)}, 1)), (Axes{{}, {"tp"}}));
  EXPECT_EQ(split_of(*Recipe::reshape(rows, {24})), (Axes{{"tp"}}));
  EXPECT_EQ(split_of(*Recipe::reshape(rows, {2, 2, 6})), (Axes{{"tp"}, {}, {}}));
  EXPECT_EQ(split_of(*Recipe::reshape(Recipe::transpose(rows, {1, 0}), {2, 3, 4})), (Axes{{}, {}, {"tp"}}));
  EXPECT_EQ(split_of(*Recipe::pad(Recipe::cast(rows, DType::f16), 0, 5)), (Axes{{"tp"}, {}}));
}

TEST(Describe, MemoryOverTimeIsWhatLives) {
  for (const auto& [name, mesh] :
       std::vector<std::pair<const char*, const char*>>{{"mlp_legacy", ""}, {"bert_dynamo23", "dp=2,tp=2"}, {"llama_legacy", "cp=2"}}) {
    const Json r = described(name, mesh);
    EXPECT_EQ(r["ranks"].size(), r["world_size"].get<std::size_t>());
    std::vector<std::size_t> live(r["steps"].size());
    for (const Json& value : r["values"]) {
      if (!value.contains("first_step") || value["first_step"].get<int>() < 0) continue;
      for (std::size_t s = 0; s < live.size(); ++s)
        if (value["first_step"].get<std::size_t>() <= s && s <= value["last_step"].get<std::size_t>())
          live[s] += (value["bytes"].get<std::size_t>() + 255) / 256 * 256;  // as device memory is aligned
    }
    EXPECT_GT(std::ranges::max(live), 0u);
    for (const Json& rank : r["ranks"]) {
      EXPECT_EQ(rank["live_bytes"].get<std::vector<std::size_t>>(), live) << name;
      EXPECT_GE(rank["activation_bytes"].get<std::size_t>(), std::ranges::max(live)) << name;
    }
    // Nothing that a step makes or reads is missing.
    for (std::size_t s = 0; s < live.size(); ++s)
      for (const Json& result : r["steps"][s]["results"])
        EXPECT_GE(live[s], r["values"][result.get<std::size_t>()]["bytes"].get<std::size_t>());
  }
}

TEST(Describe, RanksSendWhatTheirCollectivesSay) {
  const Json r = described("bert_legacy", "cp=2,tp=2");
  std::int64_t sent = 0;
  for (const Json& use : r["collectives"]) sent += use["typical_bytes"].get<std::int64_t>();
  ASSERT_GT(sent, 0);
  for (int rank = 0; rank < 4; ++rank) {
    EXPECT_EQ(r["ranks"][rank]["sent_bytes"], sent);
    EXPECT_EQ(r["ranks"][rank]["coordinates"], (Json{{"cp", rank / 2}, {"tp", rank % 2}}));
  }
}

TEST(Describe, BytesAreForTheSizesGiven) {
  const Engine engine = built("bert_legacy", "tp=2");
  const Json one = Json::parse(engine.describe({{"batch", 1}})), four = Json::parse(engine.describe({{"batch", 4}, {"sequence", 32}}));
  EXPECT_EQ(one["activation_bytes_for"], (Json{{"batch", 1}, {"sequence", 8}}));
  EXPECT_EQ(four["activation_bytes_for"], (Json{{"batch", 4}, {"sequence", 32}}));
  ASSERT_FALSE(one["collectives"].empty());
  for (std::size_t i = 0; i < one["collectives"].size(); ++i)
    EXPECT_EQ(four["collectives"][i]["typical_bytes"].get<int>(), 16 * one["collectives"][i]["typical_bytes"].get<int>());
  EXPECT_GT(four["ranks"][0]["activation_bytes"], one["ranks"][0]["activation_bytes"]);
}

TEST(Describe, RefusesSizesThatTheEngineDoesNotHave) {
  const auto complaint = [](const Engine& engine, const std::map<std::string, std::int64_t>& at) {
    try {
      engine.describe(at);
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::invalid_argument);
      return std::string(error.what());
    }
    return std::string("nothing was thrown");
  };
  const Engine engine = built("bert_legacy", "");
  EXPECT_NE(complaint(engine, {{"bath", 1}}).find("'bath', expected one of: batch, sequence"), std::string::npos);
  EXPECT_NE(complaint(engine, {{"batch", 0}}).find("batch=0 is outside"), std::string::npos);
  EXPECT_NE(complaint(engine, {{"batch", std::int64_t{1} << 60}}).find("is outside"), std::string::npos);
}

TEST(Describe, ProgramsPerRank) {
  const Json r = Json::parse(built("sharded_mlp_rank{rank}", "", 2).describe());
  ASSERT_EQ(r["ranks"].size(), 2u);
  EXPECT_EQ(r["ranks"][1]["rank"], 1);
  EXPECT_GT(r["ranks"][1]["weight_bytes"], 0);
}

}  // namespace
}  // namespace tandem
