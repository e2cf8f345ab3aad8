// Append on ranks that are threads, against the joined rows.
#include <gtest/gtest.h>

#include <cmath>

#include "core/check.h"
#include "kernels/attention_ranks_case.h"
#include "kernels/kernel_ranks.h"

namespace tandem::test {
namespace {

struct Sizes {
  std::int64_t outer = 3, past = 8, fresh = 1, inner = 5;
  bool finite = true;  // else NaN and infinities lie among them
};

// Rows `begin` … of a value [outer, rows, inner] whose element says where it lies; rows that do not exist are `missing`.
Tensor rows_of(DType dtype, const Sizes& s, std::int64_t begin, std::int64_t count, std::int64_t end, int missing) {
  const double specials[] = {NAN, INFINITY, -INFINITY};
  std::vector<double> values;
  for (std::int64_t o = 0; o < s.outer; ++o)
    for (std::int64_t row = begin; row < begin + count; ++row)
      for (std::int64_t i = 0; i < s.inner; ++i) {
        const std::int64_t number = 1 + (7 * o + 3 * row + i) % 100;
        const bool special = !s.finite && number % 4 != 0;
        values.push_back(row >= end ? missing : special ? specials[number % 4 - 1] : static_cast<double>(number));
      }
  return Tensor::of(dtype, {s.outer, count, s.inner}, values);
}

std::int64_t block(std::int64_t extent, int ranks) { return (extent + ranks - 1) / ranks; }

KernelCase case_of(DType dtype, const Sizes& s, Group& group) {
  const int n = group.size();
  const std::int64_t rows = block(s.past, n);
  KernelCase c;
  c.kernel = "append";
  c.op = "Append";
  c.threads = 2;
  c.group = &group;
  c.attributes = {{"axis", std::string("cp")}, {"num_ranks", std::int64_t{n}}, {"dim", std::int64_t{1}}, {"extent", Dim(s.past)}};
  c.operands = {rows_of(dtype, s, group.rank() * rows, rows, s.past, 101), rows_of(dtype, s, s.past, s.fresh, s.past + s.fresh, 101)};
  return c;
}

struct Case {
  DType dtype;
  Sizes sizes;
};

void expect_appended(const std::vector<Case>& cases, int ranks) {
  const auto results = results_of_ranks(ranks, [&](Group& group) {
    std::vector<Tensor> mine;
    for (const Case& c : cases) mine.push_back(run_kernel(case_of(c.dtype, c.sizes, group))[0]);
    return mine;
  });
  for (std::size_t i = 0; i < cases.size(); ++i) {
    const Sizes& s = cases[i].sizes;
    const std::int64_t rows = block(s.past + s.fresh, ranks);
    for (int r = 0; r < ranks; ++r) {
      const Tensor expected = rows_of(cases[i].dtype, s, r * rows, rows, s.past + s.fresh, 0);
      const std::string what = fmt::format("{} rows after {} on rank {} of {}, {}", s.fresh, s.past, r, ranks, to_string(cases[i].dtype));
      const Tensor& result = results[static_cast<std::size_t>(r)].at(i);
      ASSERT_EQ(result.shape(), expected.shape()) << what;
      EXPECT_TRUE(same_bits(result, expected)) << what;
    }
  }
}

class AppendRanks : public testing::TestWithParam<int> {};
INSTANTIATE_TEST_SUITE_P(World, AppendRanks, testing::Values(2, 3, 4, 5), testing::PrintToStringParamName());

TEST_P(AppendRanks, GivesTheBlocksOfTheJoinedRows) {
  std::vector<Case> cases;
  for (const std::int64_t past : {0, 1, 2, 3, 4, 5, 8, 13, 64})
    for (const std::int64_t fresh : {0, 1, 2, 3, 7, 65}) cases.push_back({DType::f32, {.past = past, .fresh = fresh}});
  expect_appended(cases, GetParam());
}

TEST_P(AppendRanks, CarriesEveryKindOfElement) {
  std::vector<Case> cases;
  for (const DType dtype : {DType::f16, DType::bf16, DType::i8, DType::i64, DType::u8}) cases.push_back({dtype, {.past = 9, .fresh = 4}});
  expect_appended(cases, GetParam());
}

TEST_P(AppendRanks, CarriesNaNAndInfinities) {
  std::vector<Case> cases;
  for (const DType dtype : {DType::f32, DType::f16, DType::bf16}) cases.push_back({dtype, {.past = 9, .fresh = 4, .finite = false}});
  expect_appended(cases, GetParam());
}

TEST_P(AppendRanks, TakesExtentsOfNothing) { expect_appended({{DType::f32, {.outer = 0}}, {DType::f32, {.inner = 0}}}, GetParam()); }

// Rows that do not fit into what a group buffers: every rank is sent to while it sends.
TEST_P(AppendRanks, MovesManyRows) { expect_appended({{DType::f32, {.outer = 2, .past = 1000, .fresh = 900, .inner = 1024}}}, GetParam()); }

// A rank's result is its past of the next step.
TEST_P(AppendRanks, StepsFollowOneAnother) {
  constexpr int kSteps = 23;
  const int n = GetParam();
  const Sizes first{.past = 0};
  const auto results = results_of_ranks(n, [&](Group& group) {
    Sizes s = first;
    Tensor mine = rows_of(DType::f32, s, 0, 0, 0, 0);
    for (int step = 0; step < kSteps; ++step) {
      KernelCase c = case_of(DType::f32, s, group);
      c.operands[0] = mine;
      mine = run_kernel(c)[0];
      s.past += s.fresh;
    }
    return std::vector<Tensor>{mine};
  });
  const std::int64_t extent = first.past + kSteps * first.fresh, rows = block(extent, n);
  for (int r = 0; r < n; ++r)
    EXPECT_EQ(results[static_cast<std::size_t>(r)].at(0).to_doubles(), rows_of(DType::f32, first, r * rows, rows, extent, 0).to_doubles())
        << "rank " << r;
}

std::int64_t sent(std::int64_t past, std::int64_t fresh, int ranks) {
  const KernelCase c = {.op = "Append",
                        .attributes = {{"num_ranks", std::int64_t{ranks}}, {"dim", std::int64_t{1}}, {"extent", Dim(past)}},
                        .operands = {Tensor(DType::f32, {3, block(past, ranks), 5}), Tensor(DType::f32, {3, fresh, 5})}};
  return find_kernel("append")->sent_bytes(call_of(c)).constant();
}

TEST(Append, SendsTheRowsByWhichBlocksGrow) {
  constexpr int kRow = 3 * 5 * 4;
  EXPECT_EQ(sent(8, 1, 4), 2 * kRow);  // blocks of 2 become blocks of 3; no rank has more than 2
  EXPECT_EQ(sent(8, 1, 4), sent(8, 4, 4));
  EXPECT_EQ(sent(9, 1, 4), 0);
  EXPECT_EQ(sent(64, 1, 4), 3 * kRow);
  EXPECT_EQ(sent(64, 1, 2), kRow);
  EXPECT_EQ(sent(0, 100, 4), 0);
}

}  // namespace
}  // namespace tandem::test
