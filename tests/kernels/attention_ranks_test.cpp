// Attention spread over ranks, that are threads here, against plain loops in double over the whole sequences.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include "kernels/attention_ranks_case.h"
#include "support/emulated.h"

namespace tandem::test {
namespace {

const std::vector<DType> kFloats = kEmulated ? std::vector{DType::bf16} : std::vector{DType::f32, DType::f16, DType::bf16};
const std::vector<std::int64_t> kSizes = kEmulated ? std::vector<std::int64_t>{3, 129} : std::vector<std::int64_t>{1, 2, 3, 7, 64, 129};

class AttentionRanks : public testing::TestWithParam<int> {};
INSTANTIATE_TEST_SUITE_P(World, AttentionRanks, testing::Values(2, 3, 4), testing::PrintToStringParamName());

// Self-attention: {full, causal, bool mask, additive mask, both} × {MHA, GQA} × dtypes × sizes, for every kernel and layout.
TEST_P(AttentionRanks, EveryCell) {
  const int n = GetParam();
  for (const DType dtype : kFloats) {
    std::vector<Whole> cases;
    for (const std::int64_t rows : kSizes)
      for (const int group : {1, 2})
        for (const char* form : {"full", "causal", "bool", "additive", "causal and additive"}) {
          Whole w{.dtype = dtype, .heads = n * group, .kv_heads = n, .rows = rows, .columns = rows};
          const std::string f = form;
          if (f.starts_with("causal")) w.causal = "upper_left";
          if (f == "bool") w.mask = random_bools({1, 1, rows, rows}, static_cast<unsigned>(rows), 3);
          if (f.ends_with("additive")) w.mask = random_tensor(dtype, {rows, rows}, 9, 2);
          w.fill(static_cast<unsigned>(cases.size()));
          cases.push_back(std::move(w));
        }
    expect_right(cases, all_spreadings(n));
  }
}

// The sizes of heads that models have, for which GPUs take other kernels than for small ones.
TEST_P(AttentionRanks, HeadSizesOfModels) {
  const int n = GetParam();
  for (const DType dtype : kFloats) {
    std::vector<Whole> cases;
    for (const auto& [size, value_size] : {std::pair{64, 64}, {192, 192}, {192, 128}, {256, 256}})
      for (const std::int64_t rows : {7, 65})
        for (const char* causal : {"none", "upper_left"}) {
          Whole w{.dtype = dtype,
                  .heads = 2 * n,
                  .kv_heads = n,
                  .rows = rows,
                  .columns = rows,
                  .size = size,
                  .value_size = value_size,
                  .causal = causal};
          w.fill(static_cast<unsigned>(cases.size()));
          cases.push_back(std::move(w));
        }
    expect_right(cases, all_spreadings(n));
    if (!on_cuda()) continue;
    for (const char* way : {"all_to_all", "all_gather", "ring"})
      expect_right(cases, {{fmt::format("cuda_flat_attention_{}", way), "contiguous", "qkv", n, 1, true}});
  }
}

// Fewer kv heads than ranks, or heads that do not divide.
TEST_P(AttentionRanks, HeadsThatDoNotDivide) {
  const int n = GetParam();
  std::vector<Whole> cases;
  for (const auto& [heads, kv_heads] : {std::pair{5, 1}, {5, 5}, {6, 1}})
    for (const std::int64_t rows : {5, 33}) {
      Whole w{.heads = heads, .kv_heads = kv_heads, .rows = rows, .columns = rows, .causal = "upper_left"};
      w.fill(static_cast<unsigned>(heads));
      cases.push_back(std::move(w));
    }
  expect_right(cases, all_spreadings(n, false));
}

// Masks that broadcast in every dimension, over a batch and over more or fewer keys than queries.
TEST_P(AttentionRanks, MasksBroadcast) {
  const int n = GetParam();
  for (const std::int64_t rows : {2, 21}) {
    std::vector<Whole> cases;
    const std::int64_t columns = 3 * rows - 1, heads = 2 * n;
    for (const Shape& shape : {Shape{2, heads, rows, columns}, Shape{2, 1, 1, columns}, Shape{heads, rows, columns}, Shape{1, heads, 1, 1},
                               Shape{rows, 1}, Shape{columns}, Shape{}, Shape{2, heads, 1, columns}, Shape{1, heads, rows, 1}})
      for (const char* causal : {"none", "lower_right"})
        for (const bool additive : {false, true}) {
          Whole w{.batch = 2,
                  .heads = heads,
                  .kv_heads = n,
                  .rows = rows,
                  .columns = columns,
                  .value_size = 5,
                  .causal = causal,
                  .empty_rows = "nan"};
          w.mask = additive ? random_tensor(DType::f32, shape, 3) : random_bools(shape, 1, 3);
          w.fill(static_cast<unsigned>(cases.size()));
          cases.push_back(std::move(w));
        }
    expect_right(cases, all_spreadings(n));
  }
}

TEST_P(AttentionRanks, CausalFormsLengthsAndSoftcap) {
  const int n = GetParam();
  std::vector<Whole> cases;
  for (const auto& [rows, columns] : {std::pair{7, 7}, {5, 40}, {40, 5}, {1, 9}, {9, 1}, {0, 4}, {4, 0}})
    for (const char* causal : {"none", "upper_left", "lower_right", "offset"})
      for (const bool lengths : {false, true})
        for (const char* empty : {"zero", "nan"}) {
          Whole w{.batch = 3,
                  .heads = n,
                  .kv_heads = n,
                  .rows = rows,
                  .columns = columns,
                  .causal = causal,
                  .empty_rows = empty,
                  .softcap = 1.5,
                  .past = 3};
          if (lengths) w.row_counts = {rows, 0, rows / 2};
          if (lengths) w.column_counts = {columns / 2, columns, 0};
          w.fill(static_cast<unsigned>(cases.size()));
          cases.push_back(std::move(w));
        }
  expect_right(cases, all_spreadings(n));
}

// Causal rows of which the late ranks hand some over; masks, if any, the same for all rows.
TEST_P(AttentionRanks, LateRowsAreHandedOver) {
  const int n = GetParam();
  for (const DType dtype : kFloats) {
    std::vector<Whole> cases;
    for (const auto& [rows, columns] : {std::pair{1, 1}, {2, 2}, {3, 3}, {7, 7}, {64, 64}, {129, 129}, {16, 40}, {40, 5}, {0, 4}, {4, 0}})
      for (const char* causal : {"upper_left", "lower_right", "offset"})
        for (const char* form : {"plain", "bool", "additive", "lengths"}) {
          Whole w{.dtype = dtype, .batch = 2, .heads = 5, .rows = rows, .columns = columns, .value_size = 6, .causal = causal, .past = 3};
          const std::string f = form;
          if (local_rows(rows, {.ranks = n}) == 1 && (f == "bool" || f == "additive")) continue;  // a mask's one row may be the rank's own
          w.kv_heads = rows % 2 == 0 ? 1 : 5;
          if (f == "plain") w.empty_rows = "nan";
          if (f == "bool") w.mask = random_bools({2, 1, 1, columns}, 1, 3);
          if (f == "additive") w.mask = random_tensor(dtype, {columns}, 9, 2);
          if (f == "lengths") w.row_counts = {rows, rows / 2};
          if (f == "lengths") w.column_counts = {columns / 2, columns};
          w.fill(static_cast<unsigned>(cases.size()));
          cases.push_back(std::move(w));
        }
    expect_right(cases, {{"attention_balanced", "contiguous", "qkv", n, 1}, {"attention_balanced", "contiguous", "qkv", n, 2}});
  }
}

// Rows without any column, −∞ and the lowest float in masks, NaN where nothing attends and where something does.
TEST_P(AttentionRanks, NothingToAttendToAndNoNumbers) {
  const int n = GetParam();
  const std::int64_t rows = 11;
  std::vector<Whole> cases;
  for (const float low : {-INFINITY, std::numeric_limits<float>::lowest()})
    for (const char* empty : {"zero", "nan"}) {
      Whole w{.heads = n, .kv_heads = n, .rows = rows, .columns = rows, .empty_rows = empty};
      Tensor mask(DType::f32, {rows, rows});
      for (std::int64_t i = 0; i < rows; ++i)
        for (std::int64_t j = 0; j < rows; ++j)
          if (i == 2 || (i == 3 && j < 8) || (i == 10 && j > 0) || j == 6) mask.mutable_as<float>()[i * rows + j] = low;
      w.mask = mask;
      w.fill(1);
      cases.push_back(w);
      w.v.mutable_as<float>()[6 * 8 + 2] = NAN;  // column 6 is for nobody but rows whose columns are all as low
      w.v.mutable_as<float>()[6 * 8 + 3] = INFINITY;
      cases.push_back(w);
      w.k.mutable_as<float>()[6 * 8 + 1] = NAN;
      if (low == -INFINITY) cases.push_back(w);
      w.mask = std::nullopt;
      cases.push_back(w);
      w.causal = "upper_left";
      cases.push_back(w);
      w.q.mutable_as<float>()[5] = NAN;
      cases.push_back(w);
    }
  expect_right(cases, all_spreadings(n));
}

// A mask that adds the lowest float to all columns of the first row, so that all count alike, and to most columns of the others.
Tensor pushed_down(std::int64_t rows, std::int64_t columns) {
  Tensor mask(DType::f32, {rows, columns});
  for (std::int64_t i = 0; i < rows; ++i)
    for (std::int64_t j = 0; j < columns; ++j)
      if (i == 0 || j % 7 != 3) mask.mutable_as<float>()[i * columns + j] = std::numeric_limits<float>::lowest();
  return mask;
}

// Queries on all ranks, keys in parts.
TEST_P(AttentionRanks, KeysInParts) {
  const int n = GetParam();
  for (const DType dtype : kFloats) {
    std::vector<Whole> cases;
    for (const std::int64_t rows : {1, 5})
      for (const std::int64_t columns : {0, 1, 2, 7, 64, 301})
        for (const int kv_heads : {1, 6})
          for (const char* form : {"full", "lower_right", "offset", "bool", "additive", "lowest", "lengths", "row lengths"}) {
            Whole w{.dtype = dtype, .batch = 2, .heads = 6, .kv_heads = kv_heads, .rows = rows, .columns = columns, .past = columns / 2};
            const std::string f = form;
            if (f == "lower_right" || f == "offset") w.causal = f;
            if (f == "bool") w.mask = random_bools({2, 1, rows, columns}, 1, 3);
            if (f == "additive") w.mask = random_tensor(dtype, {rows, columns}, 9, 2);
            if (f == "lowest") w.mask = pushed_down(rows, columns);
            if (f.ends_with("lengths")) w.column_counts = {columns / 3, columns};
            if (f == "row lengths") w.row_counts = {rows / 2, rows}, w.empty_rows = "nan";
            w.fill(static_cast<unsigned>(cases.size()));
            cases.push_back(std::move(w));
          }
    expect_right(cases, {{"attention_parts", "contiguous", "kv", n, 1}, {"attention_parts", "zigzag", "kv", n, 2}});
  }
}

// Rows of one value, as products make them.
TEST_P(AttentionRanks, PackedRows) {
  const int n = GetParam();
  if (!on_cuda()) GTEST_SKIP() << "on the CPU attention over ranks is given heads first";
  for (const DType dtype : kFloats) {
    std::vector<Whole> cases;
    for (const std::int64_t rows : kSizes)
      for (const int group : {1, 3})
        for (const std::int64_t value_size : {8, 5})
          for (const char* form : {"full", "causal", "columns", "bool"}) {
            Whole w{.dtype = dtype,
                    .batch = 2,
                    .heads = 2 * n * group,
                    .kv_heads = 2 * n,
                    .rows = rows,
                    .columns = rows,
                    .value_size = value_size};
            const std::string f = form;
            if (f == "causal") w.causal = "lower_right";
            if (f == "columns") w.mask = random_tensor(dtype, {2, w.heads, 1, rows}, 9, 2);
            if (f == "bool") w.mask = random_bools({1, 1, rows, rows}, static_cast<unsigned>(rows), 3);
            w.fill(static_cast<unsigned>(cases.size()));
            cases.push_back(std::move(w));
          }
    std::vector<Spreading> list;
    for (const char* layout : {"contiguous", "zigzag"})
      for (const char* way : {"all_to_all", "all_gather", "all_gather_groups", "ring"})
        list.push_back({fmt::format("cuda_flat_attention_{}", way), layout, "qkv", n, 1, true});
    expect_right(cases, list);
  }
}

// Every so many rows against loops in double, and the same bits when run again.
void expect_some_rows(const Whole& w, const Spreading& s, std::int64_t step) {
  const auto first = run({w}, s)[0], second = run({w}, s)[0];
  for (std::size_t r = 0; r < first.size(); ++r)
    EXPECT_TRUE(same_bits(first[r], second[r])) << text_of(w, s) << ": runs differ on rank " << r;
  const Tensor whole = join(w, s, first, text_of(w, s));
  const Numbers in_double = numbers_of(w);
  std::vector<double> got, expected;
  for (std::int64_t line = 0; line < w.batch * w.heads * w.rows; line += step) {
    const std::vector<double> row = row_of(w, in_double, line / (w.heads * w.rows), line / w.rows % w.heads, line % w.rows);
    expected.insert(expected.end(), row.begin(), row.end());
    for (std::int64_t d = 0; d < w.value_size; ++d) got.push_back(whole.at(line * w.value_size + d));
  }
  const auto count = static_cast<std::int64_t>(got.size());
  expect_close(Tensor::of(w.dtype, {count}, got), Tensor::of(w.dtype, {count}, expected), tolerance_of(w.dtype), text_of(w, s));
}

// Long enough that GPUs exchange the heads in groups, one beside the attention of another; some rows against loops in double.
TEST_P(AttentionRanks, LongSequencesInGroupsOfHeads) {
  if (!on_cuda()) GTEST_SKIP() << "on the CPU sequences of all lengths go the same way";
  const int n = GetParam();
  struct Row {
    DType dtype;
    int kv_heads, group, batch;  // heads of a rank
    std::int64_t rows, columns, value_size;
    const char* causal;
  };
  const std::vector<Row> all = {{DType::bf16, 12, 1, 1, 2560, 2560, 128, "none"},
                                {DType::f16, 12, 2, 3, 1000, 1500, 128, "none"},
                                {DType::f32, 12, 1, 2, 1300, 1300, 96, "none"},
                                {DType::bf16, 12, 1, 1, 4000, 4000, 128, "upper_left"}};
  // Short ones of many heads have much to send and little to compute.
  const std::vector<Row> quick = {{DType::bf16, 64, 1, 1, 128, 128, 128, "none"},
                                  {DType::f16, 64, 2, 1, 100, 130, 128, "none"},
                                  {DType::bf16, 128, 1, 1, 127, 127, 128, "upper_left"}};
  for (const auto& [layout, packed] : {std::pair{"contiguous", false}, {"zigzag", false}, {"contiguous", true}})
    for (const auto& [dtype, kv_heads, group, batch, rows, columns, value_size, causal] : kEmulated ? quick : all) {
      Whole w{.dtype = dtype,
              .batch = batch,
              .heads = kv_heads * n * group,
              .kv_heads = kv_heads * n,
              .rows = rows,
              .columns = columns,
              .size = 128,
              .value_size = value_size,
              .causal = causal};
      w.fill(static_cast<unsigned>(rows));
      if (packed && rows != columns) continue;
      const Spreading s = {packed ? "cuda_flat_attention_all_to_all" : "attention_all_to_all", layout, "qkv", n, 1, packed};
      expect_some_rows(w, s, 211);
    }
}

// The same by keys: groups of kv heads travel beside the attention to others. Causal, grouped and uneven, entries of a batch, masks that
// differ by head. Over NCCL only the longest go in groups.
TEST_P(AttentionRanks, LongSequencesInGroupsOfKeys) {
  if (!on_cuda()) GTEST_SKIP() << "on the CPU sequences of all lengths go the same way";
  const int n = GetParam();
  struct Row {
    DType dtype;
    std::int64_t kv_heads, group, batch, rows, columns;
    const char* form;
  };
  const std::vector<Row> all = {{DType::bf16, 24, 1, 1, 2561, 2561, "full"},       {DType::bf16, 8, 4, 1, 4003, 4003, "upper_left"},
                                {DType::f16, 6, 2, 3, 3000, 4500, "lower_right"},  {DType::bf16, 5, 3, 2, 4000, 4000, "by head"},
                                {DType::bf16, 12, 2, 2, 8191, 8191, "upper_left"}, {DType::bf16, 1, 6, 1, 4000, 4000, "full"}};
  const std::vector<Row> quick = {{DType::bf16, 240, 1, 1, 129, 129, "full"}, {DType::f16, 80, 2, 3, 100, 131, "lower_right"}};
  for (const auto& [layout, packed] : {std::pair{"contiguous", false}, {"zigzag", false}, {"contiguous", true}})
    for (const Row& row : kEmulated ? quick : all) {
      if (packed && row.rows != row.columns) continue;
      Whole w{.dtype = row.dtype,
              .batch = row.batch,
              .heads = row.kv_heads * row.group,
              .kv_heads = row.kv_heads,
              .rows = row.rows,
              .columns = row.columns,
              .size = 128,
              .value_size = row.batch == 3 ? 96 : 128};
      const std::string form = row.form;
      if (form == "by head") w.mask = random_tensor(DType::f32, {w.batch, w.heads, 1, w.columns}, 9, 2);
      else if (form != "full") w.causal = form;
      w.fill(static_cast<unsigned>(row.rows));
      const std::string kernel = packed ? "cuda_flat_attention_all_gather" : "cuda_attention_all_gather";
      expect_some_rows(w, {row.kv_heads > 1 ? kernel + "_groups" : kernel, layout, "qkv", n, 1, packed}, 1511);
    }
}

}  // namespace
}  // namespace tandem::test
