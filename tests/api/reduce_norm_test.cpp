// Models whose all-reduces go with their norms, against the same models where they do not: the same bits, as threads and as processes.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>

#include "api/run/engine_data.h"
#include "tandem/tandem.h"

namespace tandem {
namespace {

Engine built(const std::string& model, const std::string& mesh, bool fused) {
  BuildOptions options;
  options.mesh = mesh;
  options.timed = false;
  if (!fused) options.disabled_passes = {"fuse_reduce_norm"};
  return build(std::string(TANDEM_MODELS) + "/" + model + ".onnx", options);
}

RankArrays run(const Engine& engine, const Arrays& inputs, bool processes) {
  TeamOptions options;
  if (processes) options.rank_command = {"/proc/self/exe", "rank"};
  options.threads = 1;
  return Model(engine, options).run(inputs);
}

int count(const Engine& engine, const std::string& prefix) {
  const std::vector<Step>& steps = engine.data().plan().programs.at(0).steps;
  return static_cast<int>(std::ranges::count_if(steps, [&](const Step& step) { return step.op.starts_with(prefix); }));
}

class ReduceNormModels : public ::testing::TestWithParam<std::tuple<const char*, const char*>> {};
INSTANTIATE_TEST_SUITE_P(Meshes, ReduceNormModels,
                         ::testing::Combine(::testing::Values("bert_legacy", "gpt2_dynamo23", "llama_dynamo", "llama_dynamo23_f16"),
                                            ::testing::Values("tp=2", "dp=2,tp=2")));

TEST_P(ReduceNormModels, GiveTheSameBits) {
  const auto& [model, mesh] = GetParam();
  const Engine fused = built(model, mesh, true), apart = built(model, mesh, false);
  EXPECT_EQ(count(fused, "AllReduceAdd"), 4);
  EXPECT_EQ(count(apart, "AllReduceAdd"), 0);
  EXPECT_EQ(count(fused, "AllReduce"), count(apart, "AllReduce"));
  const Arrays inputs = fused.random_inputs(5);
  const RankArrays wanted = run(apart, inputs, false);
  for (const bool processes : {false, true})
    for (const auto& [name, got] : run(fused, inputs, processes))
      for (std::size_t r = 0; r < got.size(); ++r) {
        const Array& other = wanted.at(name).at(r);
        ASSERT_EQ(got[r].shape, other.shape) << name;
        EXPECT_EQ(std::memcmp(got[r].data.get(), other.data.get(), other.size_bytes()), 0) << name << " on rank " << r;
      }
}

}  // namespace
}  // namespace tandem
