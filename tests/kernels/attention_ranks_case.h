// Attention spread over ranks, that are threads here, and plain loops in double over the whole sequences.
#pragma once

#include <cmath>
#include <optional>
#include <string>
#include <vector>

#include "comm/group.h"
#include "kernels/kernel_case.h"

namespace tandem::test {

// One attention as a single device would be given it.
struct Whole {
  DType dtype = DType::f32;
  std::int64_t batch = 1, heads = 4, kv_heads = 4, rows = 8, columns = 8, size = 8, value_size = 8;
  std::string causal = "none", empty_rows = "zero";
  double softcap = 0;
  bool exact = false;  // KernelCase::exact
  std::int64_t past = 0;
  std::optional<Tensor> mask;
  std::vector<std::int64_t> row_counts, column_counts;
  Tensor q, k, v;

  void fill(unsigned seed) {
    q = random_tensor(dtype, {batch, heads, rows, size}, seed);
    k = random_tensor(dtype, {batch, kv_heads, columns, size}, seed + 1);
    v = random_tensor(dtype, {batch, kv_heads, columns, value_size}, seed + 2);
  }
  double scale() const { return 1 / std::sqrt(static_cast<double>(size)); }
};

// How it is spread.
struct Spreading {
  std::string kernel, layout = "contiguous", split = "qkv";
  int ranks = 2, threads = 1;
  bool packed = false;  // FlatAttention: columns of one value, and some that are for others
};

struct Numbers {
  std::vector<double> q, k, v;
};

// The rows that a rank holds of so many.
std::int64_t local_rows(std::int64_t extent, const Spreading& s);
Numbers numbers_of(const Whole& w);
// One row of the result, by plain loops.
std::vector<double> row_of(const Whole& w, const Numbers& n, std::int64_t b, std::int64_t h, std::int64_t i);
// What a rank of the group is given. Padding is NaN, or true, which nothing may take notice of.
KernelCase case_of(const Whole& w, const Spreading& s, Group& group);
// Results of all ranks, of each case.
std::vector<std::vector<Tensor>> run(const std::vector<Whole>& cases, const Spreading& s);
bool same_bits(const Tensor& a, const Tensor& b);
// The whole result; expects that padding holds zeros.
Tensor join(const Whole& w, const Spreading& s, const std::vector<Tensor>& parts, const std::string& what);
std::string text_of(const Whole& w, const Spreading& s);
// Each case spread in each way: right against the loops, and the same bits when run again.
void expect_right(const std::vector<Whole>& cases, const std::vector<Spreading>& spreadings);
// The kernels and layouts there are.
std::vector<Spreading> all_spreadings(int ranks, bool heads_divide = true);
Tensor random_bools(Shape shape, unsigned seed, int one_in);

}  // namespace tandem::test
