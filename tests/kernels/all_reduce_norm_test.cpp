// All-reduce with residual and norm on ranks that are threads, against sums in double.
#include <gtest/gtest.h>

#include "comm/norm_oracle.h"
#include "comm/ranks.h"
#include "kernels/kernel_case.h"
#include "kernels/kernel_ranks.h"

namespace tandem::test {
namespace {

KernelCase case_of(const ReducedNorm& given, int rank, int ranks, bool in_place) {
  KernelCase c;
  c.kernel = given.centers ? "all_reduce_add_layer_norm" : "all_reduce_add_rms_norm";
  c.op = given.centers ? "AllReduceAddLayerNorm" : "AllReduceAddRmsNorm";
  c.attributes = {{"num_ranks", std::int64_t{ranks}}, {"epsilon", 1e-5}};
  c.operands = {given.x[static_cast<std::size_t>(rank)], given.residual, given.scale};
  if (given.centers) c.operands.push_back(given.bias);
  if (given.offset) c.operands.push_back(given.offset);
  c.threads = 2;
  c.in_place = in_place;
  return c;
}

Tensor with(const Tensor& before, std::int64_t at, double value) {
  std::vector<double> values = before.to_doubles();
  values[static_cast<std::size_t>(at)] = value;
  return Tensor::of(before.dtype(), before.shape(), values);
}

class AllReduceNormRanks : public testing::TestWithParam<int> {};
INSTANTIATE_TEST_SUITE_P(World, AllReduceNormRanks, testing::Values(2, 3, 4), testing::PrintToStringParamName());

// NCCL rounds 16-bit floats after every step.
void check_results(const ReducedNorm& given, const KernelCase& c) {
  const std::vector<Tensor> results = run_kernel(c);
  const bool often = c.group->backend() == "nccl" && given.scale.dtype() != DType::f32;
  check_reduced_norm(given, results[0], results[1], often ? c.group->size() : 1);
}

TEST_P(AllReduceNormRanks, EveryTypeAndForm) {
  results_of_ranks(GetParam(), [](Group& group) {
    std::uint64_t seed = 1;
    for (const DType dtype : {DType::f32, DType::f16, DType::bf16})
      for (const auto& [rows, length] : {std::pair<std::int64_t, std::int64_t>{1, 8}, {3, 31}, {9, 384}, {200, 64}, {0, 8}})
        for (const bool centers : {false, true})
          for (const bool offset : {false, true})
            for (const bool in_place : {false, true}) {
              const ReducedNorm given = random_reduced_norm(group.size(), dtype, rows, length, centers, offset, seed += 10);
              KernelCase c = case_of(given, group.rank(), group.size(), in_place);
              c.group = &group;
              check_results(given, c);
            }
    return std::vector<Tensor>();
  });
}

// In each operand in turn, of x on one rank, on all, and of both signs on two.
TEST_P(AllReduceNormRanks, NaNAndInfinities) {
  results_of_ranks(GetParam(), [](Group& group) {
    for (const DType dtype : {DType::f32, DType::f16, DType::bf16})
      for (const bool centers : {false, true})
        for (const double special : {static_cast<double>(NAN), static_cast<double>(INFINITY), -static_cast<double>(INFINITY)}) {
          const ReducedNorm finite = random_reduced_norm(group.size(), dtype, 9, 384, centers, true, 11);
          const auto expect_with = [&](const std::function<void(ReducedNorm&)>& change) {
            ReducedNorm given = finite;
            change(given);
            KernelCase c = case_of(given, group.rank(), group.size(), false);
            c.group = &group;
            check_results(given, c);
          };
          expect_with([&](ReducedNorm& g) { g.x[0] = with(g.x[0], 2 * 384 + 5, special); });
          expect_with([&](ReducedNorm& g) {
            for (Tensor& x : g.x) x = with(x, 8 * 384 + 383, special);
          });
          expect_with([&](ReducedNorm& g) { g.x[0] = with(g.x[0], 0, special), g.x[1] = with(g.x[1], 0, -special); });
          expect_with([&](ReducedNorm& g) { g.residual = with(g.residual, 4 * 384, special); });
          expect_with([&](ReducedNorm& g) { g.scale = with(g.scale, 7, special); });
          expect_with([&](ReducedNorm& g) { g.offset = with(*g.offset, 7, special); });
          if (centers) expect_with([&](ReducedNorm& g) { g.bias = with(*g.bias, 7, special); });
        }
    return std::vector<Tensor>();
  });
}

TEST_P(AllReduceNormRanks, NormalizesSeveralDimensions) {
  results_of_ranks(GetParam(), [](Group& group) {
    const ReducedNorm given = random_reduced_norm(group.size(), DType::f32, 6, 40, true, false, 7);
    KernelCase c = case_of(given, group.rank(), group.size(), false);
    c.group = &group;
    c.attributes.emplace_back("dim", std::int64_t{2});
    const auto shaped = [](const Tensor& tensor, const Shape& shape) { return Tensor::of(tensor.dtype(), shape, tensor.to_doubles()); };
    for (const std::size_t i : {0u, 1u}) c.operands[i] = shaped(*c.operands[i], {2, 3, 5, 8});
    for (const std::size_t i : {2u, 3u}) c.operands[i] = shaped(*c.operands[i], {5, 8});
    check_results(given, c);
    return std::vector<Tensor>();
  });
}

// A rank in none of the groups, and a group of one: what it has is the sum.
TEST(AllReduceNorm, WithoutOthers) {
  const ReducedNorm given = random_reduced_norm(1, DType::f32, 5, 24, false, true, 3);
  for (const int ranks : {1, 2}) {
    const std::vector<Tensor> results = run_kernel(case_of(given, 0, ranks, false));
    check_reduced_norm(given, results[0], results[1]);
  }
}

TEST(AllReduceNorm, AGroupOfAnotherSizeIsRefused) {
  const ReducedNorm given = random_reduced_norm(2, DType::f32, 5, 24, false, true, 3);
  std::atomic<int> refused = 0;
  run_ranks(2, [&](Group& group) {
    KernelCase c = case_of(given, group.rank(), 3, false);
    c.group = &group;
    try {
      run_kernel(c);
    } catch (const Error& error) {
      refused += error.code() == ErrorCode::mismatch ? 1 : 0;
    }
  });
  EXPECT_EQ(refused, 2);
}

}  // namespace
}  // namespace tandem::test
