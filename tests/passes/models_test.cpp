// Every recorded model after the simplify phase: which ops it consists of, exactly, and that it still computes the recorded
// outputs, also after the fuse phase. A number that falls is progress; one that rises needs a reason.
#include <gtest/gtest.h>

#include <filesystem>
#include <map>
#include <sstream>

#include "core/check.h"
#include "import/onnx/import.h"
#include "passes/evaluate.h"
#include "passes/pipeline.h"
#include "support/cases.h"

namespace tandem {
namespace {

const std::filesystem::path kModels = TANDEM_MODELS;

struct Row {
  const char* model;
  const char* recognised;  // what simplify found
  const char* rest;        // every other op, with its number
};

constexpr Row kRows[] = {
    {"bert_dynamo", "Attention:2 Gelu:2 LayerNorm:5 MatMul:13",
     "Add:19 Cast:1 Constant:3 Gather:4 Iota:1 Reshape:10 Tanh:1 Transpose:8 Where:1"},
    {"bert_dynamo23", "Attention:2 Gelu:2 LayerNorm:5 MatMul:13", "Add:19 Cast:1 Constant:1 Gather:4 Iota:1 Reshape:10 Tanh:1 Transpose:8"},
    {"bert_legacy", "Attention:2 Gelu:2 LayerNorm:5 MatMul:13", "Add:19 Cast:1 Constant:1 Gather:4 Iota:1 Reshape:10 Tanh:1 Transpose:8"},
    {"gpt2_dynamo", "Attention:2 Gelu:2 LayerNorm:5 MatMul:13",
     "Add:17 And:1 Cast:1 Constant:2 Gather:2 Iota:1 LessOrEqual:1 Reshape:12 Transpose:8 Where:1"},
    {"gpt2_dynamo23", "Attention:2 Gelu:2 LayerNorm:5 MatMul:13", "Add:17 Cast:1 Gather:2 Iota:1 Reshape:10 Transpose:8"},
    {"gpt2_legacy", "Attention:2 Gelu:2 LayerNorm:5 MatMul:13", "Add:17 Cast:1 Gather:2 Iota:1 Reshape:10 Transpose:8"},
    {"gpt2_past_legacy", "Attention:2 Gelu:2 LayerNorm:5 MatMul:13", "Add:17 Cast:1 Concat:4 Gather:2 Reshape:9 Transpose:8"},
    {"llama_dynamo", "Attention:2 MatMul:15 RmsNorm:5 RotaryEmbedding:4 Silu:2",
     "Add:4 And:1 Cast:2 Constant:2 Cos:1 Gather:1 Iota:1 LessOrEqual:1 Mul:3 Reshape:12 Sin:1 Transpose:8 Where:1"},
    {"llama_dynamo23", "Attention:2 MatMul:15 RmsNorm:5 RotaryEmbedding:4 Silu:2",
     "Add:4 Cast:2 Cos:1 Gather:1 Iota:1 Mul:3 Reshape:10 Sin:1 Transpose:8"},
    {"llama_dynamo23_f16", "Attention:2 MatMul:15 RmsNorm:5 RotaryEmbedding:4 Silu:2",
     "Add:4 Cast:4 Cos:1 Gather:1 Iota:1 Mul:3 Reshape:10 Sin:1 Transpose:8"},
    {"llama_dynamo_f16", "Attention:2 MatMul:15 RmsNorm:5 RotaryEmbedding:4 Silu:2",
     "Add:4 And:1 Cast:4 Constant:2 Cos:1 Gather:1 Iota:1 LessOrEqual:1 Mul:3 Reshape:12 Sin:1 Transpose:8 Where:1"},
    {"llama_legacy", "Attention:2 MatMul:15 RmsNorm:5 RotaryEmbedding:4 Silu:2",
     "Add:4 Cast:2 Cos:1 Gather:1 Iota:1 Mul:3 Reshape:10 Sin:1 Transpose:8"},
    {"llama_past_dynamo", "Attention:2 MatMul:15 RmsNorm:5 RotaryEmbedding:4 Silu:2",
     "Add:4 And:1 Cast:2 Concat:4 Constant:2 Cos:1 Gather:1 Iota:2 LessOrEqual:1 Mul:3 Reshape:12 Sin:1 Slice:1 Transpose:8 Where:1"},
    {"llama_past_dynamo23", "Attention:2 MatMul:15 RmsNorm:5 RotaryEmbedding:4 Silu:2",
     "Add:4 Cast:2 Concat:4 Cos:1 Gather:1 Mul:3 Reshape:10 Sin:1 Slice:1 Transpose:8"},
    {"mlp_dynamo", "Gelu:1 MatMul:3 Silu:1", "Add:3"},
    {"mlp_legacy", "Gelu:1 MatMul:3 Silu:1", "Add:3"},
    {"qwen2_dynamo", "Attention:2 MatMul:15 RmsNorm:5 RotaryEmbedding:4 Silu:2",
     "Add:10 And:1 Cast:2 Constant:2 Cos:1 Gather:1 Iota:1 LessOrEqual:1 Mul:3 Reshape:12 Sin:1 Transpose:8 Where:1"},
    {"qwen3_dynamo23", "Attention:2 MatMul:15 RmsNorm:9 RotaryEmbedding:4 Silu:2",
     "Add:4 Cast:2 Cos:1 Gather:1 Iota:1 Mul:3 Reshape:10 Sin:1 Transpose:8"},
    {"qwen3_legacy", "Attention:2 MatMul:15 RmsNorm:9 RotaryEmbedding:4 Silu:2",
     "Add:4 Cast:2 Cos:1 Gather:1 Iota:1 Mul:3 Reshape:10 Sin:1 Transpose:8"},
    {"sdpa_causal_legacy", "Attention:1", ""},
    {"sdpa_causal_op23", "Attention:1", ""},
    {"sdpa_full_legacy", "Attention:1", ""},
    {"sdpa_full_op23", "Attention:1", ""},
    {"sdpa_gqa_causal_op23", "Attention:1", ""},
    {"sdpa_mask_legacy", "Attention:1", ""},
    {"sdpa_mask_op23", "Attention:1", ""},
    {"t5_dynamo", "Attention:6 Gelu:4 MatMul:37 RmsNorm:12",
     "Abs:1 Add:13 Cast:6 Constant:12 Div:4 Gather:4 Greater:1 Iota:2 Less:2 LessOrEqual:1 Log:2 Min:3 Mul:8 Neg:1 Reshape:33 Sub:2 "
     "Transpose:26 Where:5"},
    {"t5_legacy", "Attention:6 Gelu:4 MatMul:37 RmsNorm:12",
     "Abs:1 Add:13 Cast:6 Constant:12 Div:4 Gather:4 Greater:1 GreaterOrEqual:1 Iota:2 Less:2 Log:2 Min:3 Mul:8 Neg:1 Reshape:32 "
     "Sub:2 Transpose:26 Where:5"},
};

std::map<std::string, int> counts(const Graph& graph) {
  std::map<std::string, int> out;
  for (const auto& node : graph.nodes()) ++out[std::string(node->op().name)];
  return out;
}

bool is_recognised(const std::string& op) {
  for (const char* name : {"Attention", "LayerNorm", "RmsNorm", "Gelu", "Silu", "RotaryEmbedding", "MatMul"})
    if (op == name) return true;
  return false;
}

std::string text(const std::map<std::string, int>& counts, bool recognised) {
  std::string out;
  for (const auto& [op, count] : counts)
    if (is_recognised(op) == recognised) out += fmt::format("{}{}:{}", out.empty() ? "" : " ", op, count);
  return out;
}

std::unique_ptr<Module> imported(const Row& row) { return import_onnx(kModels / (std::string(row.model) + ".onnx"), {}); }

class Simplified : public ::testing::TestWithParam<Row> {};

TEST_P(Simplified, ConsistsOfTheseOps) {
  const auto module = imported(GetParam());
  run_pipeline(*module, {.phases = {Phase::simplify}});
  const auto found = counts(module->main());
  EXPECT_EQ(text(found, true), GetParam().recognised);
  EXPECT_EQ(text(found, false), GetParam().rest);
}

TEST_P(Simplified, LeavesNoAttentionInPieces) {
  const auto module = imported(GetParam());
  run_pipeline(*module, {.phases = {Phase::simplify}});
  for (const auto& node : module->main().nodes())
    for (const char* op : {"Softmax", "IsNaN", "Trilu", "Erf", "Sigmoid", "GatherND", "Pow", "Reduce"})
      EXPECT_FALSE(node->is(op)) << node->label();
}

TEST_P(Simplified, ComputesTheRecordedOutputsBeforeAndAfterFusion) {
  const testing::Cases cases = testing::Cases::open(kModels / (std::string(GetParam().model) + ".safetensors"));
  const auto module = imported(GetParam());
  for (const Phase phase : {Phase::simplify, Phase::fuse}) {
    run_pipeline(*module, {.phases = {phase}});
    for (std::size_t i = 0; i < cases.cases.size(); ++i) {
      const SymbolValues symbols = testing::bind(module->main(), cases.cases[i].inputs);
      const auto outputs = testing::evaluate(module->main(), cases.cases[i].inputs, symbols);
      for (const auto& [name, expected] : cases.cases[i].outputs)
        EXPECT_LE(testing::relative_error(outputs.at(name), expected), cases.tolerance)
            << to_string(phase) << ", case " << i << ", " << name;
    }
  }
}

// What an input may hold must not depend on its shape's optimum: extents stay symbols.
TEST_P(Simplified, KeepsEverySymbolOfItsInputs) {
  const auto module = imported(GetParam());
  const auto symbols = testing::symbols_of(module->main());
  run_pipeline(*module, {.phases = {Phase::simplify}});
  EXPECT_EQ(testing::symbols_of(module->main()), symbols);
}

INSTANTIATE_TEST_SUITE_P(Models, Simplified, ::testing::ValuesIn(kRows), [](const auto& info) { return info.param.model; });

}  // namespace
}  // namespace tandem
