// Every kernel of the device with NaN and infinities in each operand that holds any, against the op's evaluator.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "kernels/nonfinite_rows.h"
#include "ops/ops.h"
#include "ops/quantize/operands.h"

namespace tandem::test {
namespace {

const double kSpecials[] = {NAN, INFINITY, -INFINITY};

// Kernels for which there can be no row.
struct Without {
  std::string_view kernel, why;
};
const Without kWithout[] = {
    {"iota", "it has no operands"},
    {"cuda_iota", "it has no operands"},
    {"custom_cpu", "its code is the caller's"},
    {"custom_cuda", "its code is the caller's"},
};

// What is promised of rows: `which`, of infinities, that there is no finite number where there should be none, though it may be another;
// `finite`, of infinities, what is finite elsewhere; `none` nothing, of NaN as well.
enum class Promise { all, which, finite, none };
struct Weaker {
  std::string_view op, kernel;  // every kernel of the op if empty
  std::size_t operand;
  Promise promise;
  std::string_view why;
  bool causal = false;  // where later keys are hidden only
};
constexpr std::string_view kHidden = "KernelDef::weaker: v that is hidden",
                           kRounded = "KernelDef::weaker: a weight that is rounded to zero";
const Weaker kWeaker[] = {
    {"Attention", "cudnn_attention", 2, Promise::none, kHidden, true},
    {"Attention", "cudnn_attention", 2, Promise::which, kRounded},
    {"FlatAttention", "cudnn_flat_attention", 0, Promise::none, kHidden, true},  // one tensor has q, k and v
    {"FlatAttention", "cudnn_flat_attention", 1, Promise::none, kHidden, true},
    {"FlatAttention", "cudnn_flat_attention", 2, Promise::none, kHidden, true},
    {"FlatAttention", "cudnn_flat_attention", 0, Promise::which, kRounded},
    {"FlatAttention", "cudnn_flat_attention", 1, Promise::which, kRounded},
    {"FlatAttention", "cudnn_flat_attention", 2, Promise::which, kRounded},
    {"DequantMatMul", "", kDequantScale, Promise::which, "sums are scaled, of which each product would be infinite"},
    {"QuantMatMul", "", kDequantScale, Promise::which, "sums are scaled, of which each product would be infinite"},
    {"QuantMatMul", "", kQuantScaleA, Promise::which, "sums are scaled, of which each product would be infinite"},
    {"Conv", "cudnn_conv", 0, Promise::finite, "KernelDef::weaker: a sum that is -infinity"},
    {"Conv", "cudnn_conv", 1, Promise::none, "KernelDef::weaker: a weight that meets padding"},
    {"Conv", "cudnn_conv", 2, Promise::finite, "KernelDef::weaker: a sum that is -infinity"},
    {"Conv", "cudnn_conv", 3, Promise::finite, "KernelDef::weaker: a sum that is -infinity"},
};

bool hides_keys(const KernelCase& row) { return call_of(row).attributes.text("causal") != "none"; }

Promise promise_of(const KernelDef& kernel, const KernelCase& row, std::size_t operand, double special) {
  for (const Weaker& w : kWeaker) {
    const bool is_meant =
        w.op == row.op && (w.kernel.empty() || w.kernel == kernel.name) && w.operand == operand && (!w.causal || hides_keys(row));
    if (is_meant && (std::isinf(special) || w.promise == Promise::none)) return w.promise;
  }
  return Promise::all;
}

bool takes(const KernelDef& kernel, const KernelCase& row) {
  return (kernel.op == row.op || kernel.op.empty()) && !is_for_ranks(kernel) && !refusal(kernel, call_of(row));
}

// On a GPU many kernels take a row that only one of them computes by itself.
bool stands_for(const NonFiniteRow& row, const KernelDef& kernel) {
  return takes(kernel, row.row) && (kernel.device == "cpu" || kernel.op.empty() || row.kernel == kernel.name);
}

// `actual` with what is expected wherever that is not promised.
Tensor as_promised(const Tensor& actual, const Tensor& expected, Promise promise) {
  std::vector<double> values = actual.to_doubles();
  for (std::int64_t i = 0; promise != Promise::all && i < expected.count(); ++i) {
    double& value = values[static_cast<std::size_t>(i)];
    if (!std::isfinite(expected.at(i)) && (promise == Promise::finite || !std::isfinite(value))) value = expected.at(i);
  }
  return Tensor::of(actual.dtype(), actual.shape(), values);
}

// Every kernel of the device that takes the row.
void expect_right(const NonFiniteRow& row, std::size_t operand, double special) {
  KernelCase c = spiked(row.row, operand, special);
  const std::vector<Tensor> expected = evaluate(c);
  for (const KernelDef* kernel : on_cuda() ? cuda_kernels() : cpu_kernels()) {
    const Promise promise = promise_of(*kernel, c, operand, special);
    if (promise == Promise::none || !takes(*kernel, c)) continue;
    c.kernel = kernel->name;
    const std::string what = fmt::format("{} of {}, {} in operand {}", c.kernel, row.name, special, operand);
    const std::vector<Tensor> actual = run_kernel(c);
    ASSERT_EQ(actual.size(), expected.size()) << what;
    for (std::size_t i = 0; i < actual.size(); ++i)
      expect_close(promise == Promise::all ? actual[i] : as_promised(actual[i], expected[i], promise), expected[i],
                   row.roundings * tolerance_of(expected[i].dtype()), fmt::format("{}, result {}", what, i));
  }
}

class NonFiniteRows : public ::testing::TestWithParam<std::string> {};

TEST_P(NonFiniteRows, AreRight) {
  for (const NonFiniteRow& row : nonfinite_rows()) {
    if (row.group != GetParam()) continue;
    for (const double special : kSpecials)
      for (const std::size_t operand : operands_for(row.row, special)) expect_right(row, operand, special);
  }
}

INSTANTIATE_TEST_SUITE_P(, NonFiniteRows, ::testing::ValuesIn(nonfinite_groups()), [](const auto& info) { return info.param; });

bool same(double a, double b) { return a == b || (std::isnan(a) && std::isnan(b)); }

// Whether what the op gives for the row changes with the number in an operand of which something is promised.
bool matters(const KernelDef& kernel, const KernelCase& row, double special) {
  const std::vector<Tensor> before = evaluate(row);
  for (const std::size_t operand : operands_for(row, special)) {
    if (promise_of(kernel, row, operand, special) == Promise::none) continue;
    const std::vector<Tensor> after = evaluate(spiked(row, operand, special));
    for (std::size_t i = 0; i < after.size(); ++i)
      if (before[i].shape() != after[i].shape() || !std::ranges::equal(before[i].to_doubles(), after[i].to_doubles(), same)) return true;
  }
  return false;
}

// Without a GPU of its kernels those that need neither a library nor a compiler to say what they take.
std::vector<const KernelDef*> kernels_to_cover() {
  std::vector<const KernelDef*> kernels(cpu_kernels().begin(), cpu_kernels().end());
  for (const KernelDef* kernel : cuda_kernels())
    if (on_cuda() || (kernel->library.empty() && !kernel->texts)) kernels.push_back(kernel);
  std::erase_if(kernels, [](const KernelDef* kernel) {
    return is_for_ranks(*kernel) || std::ranges::find(kWithout, kernel->name, &Without::kernel) != std::end(kWithout);
  });
  return kernels;
}

TEST(NonFiniteRow, IsThereForEveryKernel) {
  const std::vector<NonFiniteRow> rows = nonfinite_rows();
  for (const KernelDef* kernel : kernels_to_cover())
    for (const double special : kSpecials) {
      const bool found = std::ranges::any_of(
          rows, [&](const NonFiniteRow& row) { return stands_for(row, *kernel) && matters(*kernel, row.row, special); });
      EXPECT_TRUE(found) << "no row of " << kernel->name << " has " << special << " where it matters";
    }
}

TEST(NonFiniteRow, IsLeftOutForReasonsThatHold) {
  const bool has_cuda = !cuda_kernels().empty();
  for (const Without& entry : kWithout) {
    const KernelDef* kernel = find_kernel(entry.kernel);
    if (!kernel && !has_cuda && entry.kernel.find("cuda") != std::string_view::npos) continue;
    ASSERT_NE(kernel, nullptr) << entry.kernel;
    const OpDef* op = all_ops().find(kernel->op);
    ASSERT_NE(op, nullptr) << entry.kernel;
    EXPECT_TRUE(op->max_operands == 0 || op->name == "Custom") << entry.kernel << ": " << entry.why;
  }
  for (const Weaker& entry : kWeaker) {
    const OpDef* op = all_ops().find(entry.op);
    ASSERT_NE(op, nullptr) << entry.op;
    EXPECT_LT(entry.operand, static_cast<std::size_t>(op->max_operands)) << entry.op;
    if (entry.kernel.empty() || !has_cuda) continue;
    const KernelDef* kernel = find_kernel(entry.kernel);
    ASSERT_NE(kernel, nullptr) << entry.kernel;
    EXPECT_NE(kernel->weaker, "") << entry.kernel << " says nowhere else: " << entry.why;
  }
}

}  // namespace
}  // namespace tandem::test
