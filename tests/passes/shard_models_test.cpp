// What sharding costs on the recorded models: the collectives that each strategy may use, counted.
#include <gtest/gtest.h>

#include <map>

#include "core/check.h"
#include "import/onnx/import.h"
#include "ops/ops.h"
#include "passes/pipeline.h"

namespace tandem {
namespace {

std::map<std::string, int> collectives_of(const std::string& model, const std::string& mesh) {
  const auto module = import_onnx(std::string(TANDEM_MODELS) + "/" + model + ".onnx", {});
  run_pipeline(*module, {.pass = {.mesh = Mesh::parse(mesh)}});
  std::map<std::string, int> count;
  for (const auto& node : module->main().nodes()) {
    const bool with_norm = node->op().name.starts_with("AllReduceAdd");
    if (with_norm) ++count["AllReduce with norm"];
    if (node->op().collective) ++count[with_norm ? "AllReduce" : std::string(node->op().name)];
    if (node->is("Attention") && node->attributes.integer("num_ranks") > 1) ++count["exchange"];
  }
  return count;
}

using Counts = std::map<std::string, int>;

struct Row {
  const char* model;
  int blocks;       // transformer blocks
  bool vocabulary;  // it ends in a product over the vocabulary
};

// All have two blocks, the others of the folder differ only in the exporter.
const Row kRows[] = {{"bert_dynamo", 2, false},     {"bert_dynamo23", 2, false},   {"bert_legacy", 2, false},   {"gpt2_dynamo", 2, true},
                     {"gpt2_dynamo23", 2, true},    {"gpt2_legacy", 2, true},      {"llama_dynamo", 2, true},   {"llama_dynamo23", 2, true},
                     {"llama_legacy", 2, true},     {"qwen2_dynamo", 2, true},     {"qwen3_dynamo23", 2, true}, {"qwen3_legacy", 2, true},
                     {"gpt2_past_legacy", 2, true}, {"llama_past_dynamo", 2, true}};

// Two all-reduces a block, of which each takes the next norm along, one for the embedding, and the logits are gathered.
TEST(ShardModels, TensorParallelCostsTwoAllReducesABlock) {
  for (const Row& row : kRows) {
    const std::string model = row.model;
    const int embedded = model == "gpt2_past_legacy" ? 1 : 0;  // adds positions before its first norm
    Counts expected = {{"AllReduce", 2 * row.blocks + 1}, {"AllReduce with norm", 2 * row.blocks + embedded}};
    if (row.vocabulary) expected["AllGather"] = 1;
    EXPECT_EQ(collectives_of(row.model, "tp=2"), expected) << row.model;
  }
}

TEST(ShardModels, DataParallelCostsNothing) {
  for (const Row& row : kRows) EXPECT_EQ(collectives_of(row.model, "dp=2"), Counts()) << row.model;
}

// BERT's pooler needs the first row on every rank.
TEST(ShardModels, ContextParallelCostsOneExchangePerAttention) {
  for (const Row& row : kRows) {
    const std::string model = row.model;
    if (model.find("_past") != std::string::npos) continue;
    Counts expected = {{"exchange", row.blocks}};
    if (model.starts_with("bert")) expected["AllGather"] = 1;
    EXPECT_EQ(collectives_of(model, "cp=2"), expected) << model;
  }
}

// Rows of k and of v move where the blocks of the cache grow; products and norms cost nothing.
TEST(ShardModels, ACacheUnderContextParallelCostsOneExchangePerAttention) {
  for (const char* model : {"gpt2_past_legacy", "llama_past_dynamo", "llama_past_dynamo23"})
    for (const char* mesh : {"cp=2", "cp=3"}) EXPECT_EQ(collectives_of(model, mesh), (Counts{{"exchange", 2}, {"Append", 4}})) << model;
}

TEST(ShardModels, AttentionAloneUnderContextParallelIsOneExchange) {
  for (const char* model : {"sdpa_full_legacy", "sdpa_full_op23", "sdpa_causal_legacy", "sdpa_causal_op23", "sdpa_gqa_causal_op23",
                            "sdpa_mask_legacy", "sdpa_mask_op23"})
    EXPECT_EQ(collectives_of(model, "cp=2"), (Counts{{"exchange", 1}})) << model;
}

}  // namespace
}  // namespace tandem
