// NaN and infinities in every kernel that needs several ranks. Rows of Append and of the norms are in their own files.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <set>

#include "comm/oracle.h"
#include "kernels/attention_ranks_case.h"
#include "kernels/kernel_ranks.h"

namespace tandem::test {
namespace {

const DType kFloats[] = {DType::f32, DType::f16, DType::bf16};

class NonFiniteRanks : public testing::TestWithParam<int> {};
INSTANTIATE_TEST_SUITE_P(World, NonFiniteRanks, testing::Values(2, 3, 4), testing::PrintToStringParamName());

// Small whole numbers, whose sums are exact; in each line of 13 a NaN and infinities of one rank each, and infinities of both signs.
Tensor input(DType dtype, const Shape& shape, int rank) {
  std::vector<double> values;
  for (std::int64_t i = 0; i < element_count(shape); ++i) {
    const std::int64_t place = i % 13, kind = place / 4;
    double value = static_cast<double>((i * 7 + rank) % 5 - 2);
    if (place == 12 && rank < 2) value = rank == 0 ? INFINITY : -INFINITY;
    if (place < 12 && place % 4 == rank) value = kind == 0 ? NAN : kind == 1 ? INFINITY : -INFINITY;
    values.push_back(value);
  }
  return Tensor::of(dtype, shape, values);
}

void expect_collective(const CollectiveInfo& collective, std::optional<Reduction> reduction, DType dtype, Group& group) {
  const int n = group.size();
  const Shape shape = {4 * n, 26};
  std::vector<Tensor> inputs;
  for (int r = 0; r < n; ++r) inputs.push_back(input(dtype, shape, r));
  KernelCase c = {.kernel = fmt::format("group_{}", to_string(collective.kind)),
                  .op = std::string(collective.op),
                  .attributes = {{"num_ranks", std::int64_t{n}}},
                  .operands = {inputs[static_cast<std::size_t>(group.rank())]},
                  .threads = 2,
                  .group = &group};
  CollectiveCall call = {.kind = collective.kind, .reduction = reduction, .dtype = dtype};
  if (reduction) c.attributes.emplace_back("reduce", std::string(to_string(*reduction)));
  if (collective.rooted) c.attributes.emplace_back("root", std::int64_t{1}), call.root = 1;
  if (collective.kind == Collective::shift) c.attributes.emplace_back("shift", std::int64_t{1}), call.shift = 1;
  if (collective.kind == Collective::all_to_all) c.attributes.emplace_back("concat_dim", std::int64_t{1}), call.concat_axis = 1;
  check_output(call, group.rank(), inputs, run_kernel(c)[0]);
}

TEST_P(NonFiniteRanks, Collectives) {
  results_of_ranks(GetParam(), [](Group& group) {
    for (const CollectiveInfo& collective : collectives())
      for (const DType dtype : kFloats) {
        if (!collective.reduces) expect_collective(collective, std::nullopt, dtype, group);
        for (const Reduction reduction : {Reduction::sum, Reduction::prod, Reduction::max, Reduction::min, Reduction::avg}) {
          const bool drops =
              group.backend() == "nccl" && (reduction == Reduction::max || reduction == Reduction::min);  // KernelDef::weaker
          if (collective.reduces && !drops) expect_collective(collective, reduction, dtype, group);
        }
      }
    return std::vector<Tensor>();
  });
}

// Those of all_spreadings() and those that are for some calls; then those that GPUs alone have.
std::vector<Spreading> spreadings(int ranks, bool causal, bool of_gpus) {
  std::vector<Spreading> list = all_spreadings(ranks);
  list.push_back({"attention_parts", "contiguous", "kv", ranks, 1});
  if (causal) list.push_back({"attention_balanced", "contiguous", "qkv", ranks, 1});
  if (!of_gpus) return list;
  list.push_back({"cuda_attention_all_gather_groups", "contiguous", "qkv", ranks, 1});
  for (const char* way : {"all_to_all", "all_gather", "all_gather_groups", "ring"})
    list.push_back({fmt::format("cuda_flat_attention_{}", way), "contiguous", "qkv", ranks, 1, true});
  return list;
}

// In an early and in a late row of q, k and v in turn, which of causal attention not all see.
TEST_P(NonFiniteRanks, Attention) {
  const int n = GetParam();
  for (const bool causal : {false, true}) {
    std::vector<Whole> cases;
    for (const DType dtype : kFloats)
      for (Tensor Whole::*const where : {&Whole::q, &Whole::k, &Whole::v})
        for (const double special : {static_cast<double>(NAN), static_cast<double>(INFINITY), -static_cast<double>(INFINITY)})
          for (const std::int64_t row : {1, 9}) {
            Whole w{.dtype = dtype, .heads = 2 * n, .kv_heads = n, .rows = 11, .columns = 11, .causal = causal ? "upper_left" : "none"};
            w.fill(static_cast<unsigned>(cases.size()));
            store_element(dtype, (w.*where).mutable_data(), row * w.size + 3, special);
            cases.push_back(std::move(w));
          }
    expect_right(cases, spreadings(n, causal, on_cuda()));
  }
}

// So many rows that cuDNN would attend to a rank's share, which feels what is hidden (its KernelDef::weaker); `exact` forbids it there too.
TEST_P(NonFiniteRanks, ExactAttentionOfManyRows) {
  const int n = GetParam();
  std::vector<Whole> cases;
  for (const DType dtype : {DType::f16, DType::bf16})
    for (const double special : {static_cast<double>(NAN), static_cast<double>(INFINITY)}) {
      Whole w{.dtype = dtype, .heads = 2 * n, .kv_heads = n, .rows = 64 * n, .columns = 64 * n, .causal = "upper_left", .exact = true};
      w.fill(static_cast<unsigned>(cases.size()));
      store_element(dtype, w.v.mutable_data(), (w.columns - 9) * w.value_size + 3, special);
      cases.push_back(std::move(w));
    }
  expect_right(cases, spreadings(n, true, on_cuda()));
}

TEST(NonFiniteRank, RowsAreThereForEveryKernel) {
  std::set<std::string> covered = {"append", "all_reduce_add_layer_norm", "all_reduce_add_rms_norm"};
  for (const CollectiveInfo& collective : collectives()) covered.insert(fmt::format("group_{}", to_string(collective.kind)));
  for (const Spreading& s : spreadings(2, true, true)) covered.insert(s.kernel);
  for (const auto& kernels : {cpu_kernels(), cuda_kernels()})
    for (const KernelDef* kernel : kernels) {
      const std::string name(kernel->name);
      const bool found = covered.contains(name) || (name.starts_with("cuda_") && covered.contains(name.substr(5)));
      EXPECT_EQ(is_for_ranks(*kernel), found) << name;
    }
}

}  // namespace
}  // namespace tandem::test
