// Ops of the user's own on a GPU: with code for it, and with code for the CPU only.
#include "tandem/custom_op.h"

#include <cuda_runtime.h>
#include <gtest/gtest.h>

#include <cstring>
#include <filesystem>
#include <fstream>

#include "gpu/here.h"
#include "import/model_builder.h"
#include "tandem/tandem.h"

namespace tandem {
namespace {

// y = x, twice: what is copied on the GPU, or by the host, is the input.
void copy_on_gpu(const CustomCall& call) {
  const std::size_t bytes = static_cast<std::size_t>(element_count(call.operands[0].shape)) * sizeof(float);
  EXPECT_EQ(
      cudaMemcpyAsync(call.results[0].data, call.operands[0].data, bytes, cudaMemcpyDeviceToDevice, static_cast<cudaStream_t>(call.stream)),
      cudaSuccess);
}
void negate_on_cpu(const CustomCall& call) {
  EXPECT_EQ(call.stream, nullptr);
  for (std::int64_t i = 0; i < element_count(call.operands[0].shape); ++i)
    static_cast<float*>(call.results[0].data)[i] = -static_cast<const float*>(call.operands[0].data)[i];
}

TEST(CustomOpOnGpu, RunsRecordedAndReplayed) {
  if (!testing::has_gpu()) GTEST_SKIP() << "this machine has no GPU";
  register_op({.domain = "acme", .name = "Copy", .cuda = copy_on_gpu});
  register_op({.domain = "acme", .name = "Negate", .cpu = negate_on_cpu});
  testing::OnnxModel model;
  model.input("x", {"batch", "5"});
  model.node("Copy", {"x"}, {"a"}, "copy").set_domain("acme");
  model.node("Abs", {"a"}, {"b"}, "abs");
  model.node("Negate", {"b"}, {"y"}, "negate").set_domain("acme");
  model.output("y");
  const std::string path = (std::filesystem::path(::testing::TempDir()) / "tandem_custom_gpu.onnx").string();
  std::ofstream(path, std::ios::binary) << model.proto.SerializeAsString();
  BuildOptions options;
  options.device = "cuda";
  const Engine engine = build(path, options);
  EXPECT_NE(engine.describe().find("custom_cuda"), std::string::npos);
  Context context(engine);
  context.set_input_shape(0, {3, 5});
  for (int call = 0; call < 4; ++call) {  // one by one, recorded, replayed
    std::vector<float> x(15), y(15, 1);
    for (std::size_t i = 0; i < x.size(); ++i) x[i] = (i % 2 ? 1.0f : -1.0f) * static_cast<float>(i + static_cast<std::size_t>(call));
    const void* const from[] = {x.data()};
    void* const to[] = {y.data()};
    context.run(from, to);
    for (std::size_t i = 0; i < x.size(); ++i) EXPECT_EQ(y[i], -std::abs(x[i])) << call << " " << i;
  }
}

}  // namespace
}  // namespace tandem
