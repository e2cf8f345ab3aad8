// Each way that a kernel of ours goes on a GPU, with a small shape: what compute-sanitizer is run over, for which the other tests are too
// long (tools/gpu_checks/sanitizer.py). Without a GPU the kernels of the CPU compute the same.
#include <gtest/gtest.h>

#include <set>

#include "kernels/small_shapes.h"

namespace tandem::test {

void PrintTo(const SmallShape& small, std::ostream* out) { *out << small.kernel; }

namespace {

class OneSmallShape : public ::testing::TestWithParam<SmallShape> {};

// The kernel that the row is for, or without a GPU one of the CPU; empty: none takes it here.
std::string kernel_for(const KernelCase& c, const SmallShape& small) {
  const OpCall call = call_of(c);
  if (on_cuda()) {
    const KernelDef* kernel = find_kernel(small.kernel);
    return kernel && !refusal(*kernel, call) ? std::string(small.kernel) : "";
  }
  for (const KernelDef* kernel : kernels_of(c.op, "cpu"))
    if (kernel->weaker.empty() && !refusal(*kernel, call)) return std::string(kernel->name);
  return "";
}

TEST_P(OneSmallShape, IsRight) {
  KernelCase c = GetParam().row;
  c.kernel = kernel_for(c, GetParam());
  if (c.kernel.empty()) GTEST_SKIP() << "no kernel takes it here";
  expect_kernel_matches_op(c, GetParam().roundings * tolerance_of(call_of(c).results.at(0).dtype));
}

INSTANTIATE_TEST_SUITE_P(, OneSmallShape, ::testing::ValuesIn(small_shapes()), [](const auto& info) { return info.param.name; });

// Of one GPU: no kernel of the list is left out, and each takes the shape that stands for it.
TEST(OneSmallShapes, AreThereForEveryKernel) {
  const std::vector<SmallShape> shapes = small_shapes();
  std::set<std::string_view> covered;
  for (const SmallShape& small : shapes) covered.insert(small.kernel);
  const auto is_for_ranks = [](const KernelDef& kernel) {
    return kernel.sent_bytes || kernel.name.find("_all_") != std::string_view::npos || kernel.name.starts_with("cuda_group_");
  };
  const std::set<std::string_view> others = {"custom_cuda", "cudnn_attention", "cudnn_flat_attention"};  // whose code is others'
  for (const KernelDef* kernel : cuda_kernels()) {
    if (kernel->through_host || is_for_ranks(*kernel) || others.contains(kernel->name)) continue;
    EXPECT_TRUE(covered.contains(kernel->name)) << kernel->name;
  }
  for (const SmallShape& small : shapes) {
    const KernelDef* kernel = find_kernel(small.kernel);
    if (!kernel || !kernel->library.empty() || kernel->texts) continue;  // a build without CUDA, or what a library decides
    EXPECT_EQ(refusal(*kernel, call_of(small.row)), std::nullopt) << small.name;
  }
}

}  // namespace
}  // namespace tandem::test
