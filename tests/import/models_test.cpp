// Every recorded model: imports, and computes the recorded outputs with the plain evaluators of its ops.
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>

#include "import/onnx/import.h"
#include "passes/evaluate.h"
#include "support/cases.h"

namespace tandem {
namespace {

const std::filesystem::path kModels = TANDEM_MODELS;

std::vector<std::string> models() {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(kModels))
    if (entry.path().extension() == ".onnx") names.push_back(entry.path().stem());
  std::ranges::sort(names);
  return names;
}

// NAME_rank2 has its cases in NAME.
testing::Cases cases_of(const std::string& model) {
  const std::size_t at = model.rfind("_rank");
  const bool per_rank = at != std::string::npos && !std::filesystem::exists(kModels / (model + ".safetensors"));
  return testing::Cases::open(kModels / ((per_rank ? model.substr(0, at) : model) + ".safetensors"),
                              per_rank ? std::stoi(model.substr(at + 5)) : 0);
}

class Models : public ::testing::TestWithParam<std::string> {};

TEST_P(Models, GiveTheRecordedOutputs) {
  const testing::Cases cases = cases_of(GetParam());
  const auto module = import_onnx(kModels / (GetParam() + ".onnx"), {.world_size = cases.ranks});
  verify(*module);
  ASSERT_FALSE(cases.cases.empty());
  const Graph& graph = module->main();
  for (std::size_t i = 0; i < cases.cases.size(); ++i) {
    const SymbolValues symbols = testing::bind(graph, cases.cases[i].inputs);
    for (const auto& [name, range] : graph.profiles.at(0)) EXPECT_LE(symbols.at(name), range.max) << name;
    if (cases.ranks > 1) continue;  // collectives need ranks: the team's tests compare those
    const auto outputs = testing::evaluate(graph, cases.cases[i].inputs, symbols);
    ASSERT_EQ(outputs.size(), cases.cases[i].outputs.size());
    for (const auto& [name, expected] : cases.cases[i].outputs)
      EXPECT_LE(testing::relative_error(outputs.at(name), expected), cases.tolerance) << "case " << i << ", " << name;
  }
}

INSTANTIATE_TEST_SUITE_P(All, Models, ::testing::ValuesIn(models()), [](const auto& info) { return info.param; });

}  // namespace
}  // namespace tandem
