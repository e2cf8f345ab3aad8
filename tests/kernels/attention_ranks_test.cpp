// Attention spread over ranks, that are threads here, against plain loops in double over the whole sequences.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "comm/gpu_group.h"
#include "comm/ranks.h"
#include "core/check.h"
#include "kernels/kernel_case.h"
#include "ops/attention/operands.h"
#include "ops/shape_rules.h"

namespace tandem::test {
namespace {

using namespace attention;

// One attention as a single device would be given it.
struct Whole {
  DType dtype = DType::f32;
  std::int64_t batch = 1, heads = 4, kv_heads = 4, rows = 8, columns = 8, size = 8, value_size = 8;
  std::string causal = "none", empty_rows = "zero";
  double softcap = 0;
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

// Rows a rank holds, and where row `local` of a rank lies in the whole sequence.
std::int64_t local_rows(std::int64_t extent, const Spreading& s) {
  const std::int64_t parts = s.layout == "zigzag" ? 2 * s.ranks : s.ranks;
  return (extent + parts - 1) / parts * (parts / s.ranks);
}

std::int64_t position(std::int64_t local, std::int64_t rows, int rank, const Spreading& s) {
  if (s.layout != "zigzag") return rank * rows + local;
  const std::int64_t chunk = rows / 2;
  return local < chunk ? rank * chunk + local : (2 * s.ranks - 1 - rank) * chunk + (local - chunk);
}

// The mask's element for (b, h, i, j): 0 or the number to add, −∞ where it forbids.
double mask_at(const Whole& w, std::int64_t b, std::int64_t h, std::int64_t i, std::int64_t j) {
  if (!w.mask) return 0;
  const std::int64_t index[] = {b, h, i, j};
  const Shape& shape = w.mask->shape();
  std::int64_t at = 0;
  for (std::size_t d = 0; d < shape.size(); ++d) at = at * shape[d] + (shape[d] == 1 ? 0 : index[4 - shape.size() + d]);
  if (w.mask->dtype() == DType::boolean) return w.mask->int_at(at) != 0 ? 0 : -INFINITY;
  return w.mask->at(at);
}

std::int64_t last_column(const Whole& w, std::int64_t i) {
  if (w.causal == "upper_left") return i;
  if (w.causal == "lower_right") return i + w.columns - w.rows;
  if (w.causal == "offset") return i + w.past;
  return w.columns - 1;
}

struct Numbers {
  std::vector<double> q, k, v;
};

std::vector<double> numbers(const Tensor& t) {
  std::vector<double> all;
  for (std::int64_t i = 0; i < t.count(); ++i) all.push_back(t.at(i));
  return all;
}

std::vector<double> row_of(const Whole& w, const Numbers& n, std::int64_t b, std::int64_t h, std::int64_t i) {
  std::vector<double> out(static_cast<std::size_t>(w.value_size), 0.0), scores;
  if (!w.row_counts.empty() && i >= w.row_counts[static_cast<std::size_t>(b)]) return out;
  const std::int64_t kv = b * w.kv_heads + h / (w.heads / w.kv_heads);
  double top = -INFINITY, total = 0;
  for (std::int64_t j = 0; j < w.columns; ++j) {
    double s = 0;
    const double* q = n.q.data() + ((b * w.heads + h) * w.rows + i) * w.size;
    const double* k = n.k.data() + (kv * w.columns + j) * w.size;
    for (std::int64_t d = 0; d < w.size; ++d) s += q[d] * k[d];
    s *= w.scale();
    if (w.softcap > 0) s = w.softcap * std::tanh(s / w.softcap);
    const double more = mask_at(w, b, h, i, j);
    const bool allowed =
        j <= last_column(w, i) && (w.column_counts.empty() || j < w.column_counts[static_cast<std::size_t>(b)]) && more != -INFINITY;
    scores.push_back(allowed ? s + more : -INFINITY);
    if (std::isnan(scores.back())) top = NAN;
    if (!std::isnan(top)) top = std::max(top, scores.back());
  }
  if (top == -INFINITY) {
    std::fill(out.begin(), out.end(), w.empty_rows == "nan" ? NAN : 0.0);
    return out;
  }
  for (std::int64_t j = 0; j < w.columns; ++j) {
    const double weight = std::exp(scores[static_cast<std::size_t>(j)] - top);
    if (weight == 0) continue;
    total += weight;
    const double* v = n.v.data() + (kv * w.columns + j) * w.value_size;
    for (std::int64_t d = 0; d < w.value_size; ++d) out[static_cast<std::size_t>(d)] += weight * v[d];
  }
  for (double& x : out) x /= total;
  return out;
}

Tensor expected_of(const Whole& w) {
  const Numbers in_double = {numbers(w.q), numbers(w.k), numbers(w.v)};
  std::vector<double> all;
  for (std::int64_t b = 0; b < w.batch; ++b)
    for (std::int64_t h = 0; h < w.heads; ++h)
      for (std::int64_t i = 0; i < w.rows; ++i)
        for (const double x : row_of(w, in_double, b, h, i)) all.push_back(x);
  return Tensor::of(w.dtype, {w.batch, w.heads, w.rows, w.value_size}, all);
}

// Dimension `dim` of a tensor as a rank holds it; padding is NaN, or true, which nothing may take notice of.
Tensor part_of(const Tensor& whole, std::size_t dim, int rank, const Spreading& s) {
  Shape shape = whole.shape();
  const std::int64_t extent = shape[dim], rows = local_rows(extent, s);
  shape[dim] = rows;
  std::int64_t inner = 1;
  for (std::size_t d = dim + 1; d < shape.size(); ++d) inner *= shape[d];
  Tensor part(whole.dtype(), shape);
  for (std::int64_t at = 0; at < part.count(); ++at) {
    const std::int64_t outer = at / inner / rows, p = position(at / inner % rows, rows, rank, s);
    const bool real = p < extent;
    const std::int64_t from = (outer * extent + p) * inner + at % inner;
    if (whole.dtype() == DType::boolean)
      part.mutable_data()[at] = real ? whole.data()[from] : std::byte{1};
    else
      store_element(part.dtype(), part.mutable_data(), at, real ? whole.at(from) : NAN);
  }
  return part;
}

// [batch, heads, rows, size] to [batch, rows, heads · size], or back.
Tensor heads_last(const Tensor& x) {
  const Shape& s = x.shape();
  Tensor out(x.dtype(), {s[0], s[2], s[1] * s[3]});
  for (std::int64_t i = 0; i < x.count(); ++i) {
    const std::int64_t d = i % s[3], row = i / s[3] % s[2], head = i / s[3] / s[2] % s[1], b = i / s[3] / s[2] / s[1];
    store_element(x.dtype(), out.mutable_data(), ((b * s[2] + row) * s[1] + head) * s[3] + d, x.at(i));
  }
  return out;
}
Tensor heads_first(const Tensor& x, std::int64_t heads) {
  const Shape& s = x.shape();
  const std::int64_t size = s[2] / heads;
  Tensor out(x.dtype(), {s[0], heads, s[1], size});
  for (std::int64_t i = 0; i < x.count(); ++i) {
    const std::int64_t d = i % size, head = i / size % heads, row = i / s[2] % s[1], b = i / s[2] / s[1];
    store_element(x.dtype(), out.mutable_data(), ((b * heads + head) * s[1] + row) * size + d, x.at(i));
  }
  return out;
}

// The case with k, NaN, q and v side by side in one value.
void pack(KernelCase& c, const Whole& w) {
  const Tensor parts[] = {heads_last(*c.operands[kK]), heads_last(*c.operands[kQ]), heads_last(*c.operands[kV])};
  constexpr std::int64_t kBetween = 3;
  const std::int64_t rows = parts[0].shape()[1], after_k = parts[0].shape()[2] + kBetween, after_q = after_k + parts[1].shape()[2];
  const std::int64_t begins[] = {0, after_k, after_q}, width = after_q + parts[2].shape()[2];
  Tensor all(w.dtype, {w.batch, rows, width});
  for (std::int64_t i = 0; i < all.count(); ++i) store_element(w.dtype, all.mutable_data(), i, NAN);
  for (std::size_t part = 0; part < 3; ++part)
    for (std::int64_t i = 0; i < parts[part].count(); ++i) {
      const std::int64_t columns = parts[part].shape()[2];
      store_element(w.dtype, all.mutable_data(), i / columns * width + begins[part] + i % columns, parts[part].at(i));
    }
  for (const std::size_t i : {kQ, kK, kV}) c.operands[i] = all;
  c.op = "FlatAttention";
  for (const auto& [name, value] : {std::pair{"heads", w.heads}, {"kv_heads", w.kv_heads}, {"size", w.size}, {"value_size", w.value_size}}) c.attributes.emplace_back(name, value);
  c.attributes.emplace_back("begins", std::vector<std::int64_t>{after_k, 0, after_q});
}

KernelCase case_of(const Whole& w, const Spreading& s, Group& group) {
  const int rank = group.rank();
  const bool all_rows = s.split == "kv";
  KernelCase c;
  c.kernel = s.kernel;
  c.op = "Attention";
  c.threads = s.threads;
  c.group = &group;
  c.attributes = {{"scale", w.scale()},
                  {"causal", w.causal},
                  {"softcap", w.softcap},
                  {"empty_rows", w.empty_rows},
                  {"axis", std::string("cp")},
                  {"layout", s.layout},
                  {"split", s.split},
                  {"extent", Dim(w.rows)},
                  {"kv_extent", Dim(w.columns)},
                  {"num_ranks", std::int64_t{s.ranks}}};
  c.operands = {all_rows ? w.q : part_of(w.q, 2, rank, s), part_of(w.k, 2, rank, s), part_of(w.v, 2, rank, s)};
  c.operands.resize(7);
  if (w.mask) {
    const std::size_t dims = w.mask->shape().size();
    const bool split = !all_rows && dims >= 2 && w.mask->shape()[dims - 2] == w.rows && (w.rows > 1 || local_rows(1, s) == 1);
    c.operands[kMask] = split ? part_of(*w.mask, dims - 2, rank, s) : *w.mask;
  }
  if (!w.row_counts.empty()) c.operands[kQueryLengths] = Tensor::of_ints(DType::i64, {w.batch}, w.row_counts);
  if (!w.column_counts.empty()) c.operands[kKeyLengths] = Tensor::of_ints(DType::i32, {w.batch}, w.column_counts);
  if (w.causal == "offset") c.operands[kPast] = Tensor::of_ints(DType::i64, {}, std::vector<std::int64_t>{w.past});
  if (s.packed) pack(c, w);
  return c;
}

// A rank's group of GPUs, where each rank has one; what the ranks have anyway else.
class RankGroup {
 public:
  explicit RankGroup(Group& host) : host_(host) {
    if (!on_cuda() || cuda_device_count() < host.size()) return;
    device_ = open_device("cuda", host.rank());
    const OnDevice on_device(*device_);
    std::string why;
    gpus_ = make_gpu_group(host, *device_, {}, &why);
    EXPECT_TRUE(gpus_) << why;
  }
  Group& get() { return gpus_ ? *gpus_ : host_; }

 private:
  Group& host_;
  std::shared_ptr<Device> device_;
  std::unique_ptr<Group> gpus_;
};

// Results of all ranks, of each case.
std::vector<std::vector<Tensor>> run(const std::vector<Whole>& cases, const Spreading& s) {
  std::vector<std::vector<Tensor>> results(cases.size(), std::vector<Tensor>(static_cast<std::size_t>(s.ranks)));
  run_ranks(s.ranks, [&](Group& host) {
    RankGroup group(host);
    for (std::size_t i = 0; i < cases.size(); ++i) {
      const Tensor result = run_kernel(case_of(cases[i], s, group.get()))[0];
      results[i][static_cast<std::size_t>(host.rank())] = s.packed ? heads_first(result, cases[i].heads) : result;
    }
  });
  return results;
}

bool same_bits(const Tensor& a, const Tensor& b) {
  return a.shape() == b.shape() && a.dtype() == b.dtype() && (a.size_bytes() == 0 || std::memcmp(a.data(), b.data(), a.size_bytes()) == 0);
}

// The whole result, and that padding holds zeros.
Tensor join(const Whole& w, const Spreading& s, const std::vector<Tensor>& parts, const std::string& what) {
  if (s.split == "kv") {
    for (const Tensor& part : parts) EXPECT_TRUE(same_bits(part, parts[0])) << what << ": ranks differ";
    return parts[0];
  }
  Tensor whole(w.dtype, {w.batch, w.heads, w.rows, w.value_size});
  const std::int64_t rows = local_rows(w.rows, s);
  for (int r = 0; r < s.ranks; ++r) {
    const Tensor& part = parts[static_cast<std::size_t>(r)];
    for (std::int64_t at = 0; at < part.count(); ++at) {
      const std::int64_t outer = at / w.value_size / rows, p = position(at / w.value_size % rows, rows, r, s);
      if (p >= w.rows) {
        EXPECT_EQ(part.at(at), 0) << what << ": padding on rank " << r;
        if (part.at(at) != 0) return whole;
      } else {
        store_element(w.dtype, whole.mutable_data(), (outer * w.rows + p) * w.value_size + at % w.value_size, part.at(at));
      }
    }
  }
  return whole;
}

std::string text_of(const Whole& w, const Spreading& s) {
  return fmt::format("{} {} {}{} on {} ranks: {} b{} h{}/{} rows {} columns {} causal {} mask {} past {}", s.kernel, s.layout, s.split,
                     s.packed ? " packed" : "", s.ranks, to_string(w.dtype), w.batch, w.heads, w.kv_heads, w.rows, w.columns, w.causal,
                     w.mask ? fmt::format("{}{}", to_string(w.mask->dtype()), to_string(w.mask->shape())) : "none", w.past);
}

void expect_right(const std::vector<Whole>& cases, const std::vector<Tensor>& expected, const Spreading& s) {
  const auto first = run(cases, s), second = run(cases, s);
  for (std::size_t i = 0; i < cases.size(); ++i) {
    const std::string what = text_of(cases[i], s);
    expect_close(join(cases[i], s, first[i], what), expected[i], tolerance_of(cases[i].dtype), what);
    for (std::size_t r = 0; r < first[i].size(); ++r)
      EXPECT_TRUE(same_bits(first[i][r], second[i][r])) << what << ": runs differ on rank " << r;
  }
}

void expect_right(const std::vector<Whole>& cases, const std::vector<Spreading>& spreadings) {
  std::vector<Tensor> expected;
  for (const Whole& w : cases) expected.push_back(expected_of(w));
  for (const Spreading& s : spreadings) expect_right(cases, expected, s);
}

std::vector<Spreading> all_spreadings(int ranks, bool heads_divide = true) {
  std::vector<Spreading> list;
  for (const char* layout : {"contiguous", "zigzag"})
    for (const char* kernel : {"attention_all_gather", "attention_ring", "attention_all_to_all"})
      if (heads_divide || std::string(kernel) != "attention_all_to_all") list.push_back({kernel, layout, "qkv", ranks, ranks == 2 ? 2 : 1});
  return list;
}

Tensor random_bools(Shape shape, unsigned seed, int one_in) {
  std::vector<std::int64_t> values;
  for (std::int64_t i = 0; i < element_count(shape); ++i) values.push_back((i + seed) * 2654435761 % 97 % one_in != 0);
  return Tensor::of_ints(DType::boolean, std::move(shape), values);
}

const DType kFloats[] = {DType::f32, DType::f16, DType::bf16};
const std::int64_t kSizes[] = {1, 2, 3, 7, 64, 129};

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

// Queries on all ranks, keys in parts.
TEST_P(AttentionRanks, KeysInParts) {
  const int n = GetParam();
  for (const DType dtype : kFloats) {
    std::vector<Whole> cases;
    for (const std::int64_t rows : {1, 5})
      for (const std::int64_t columns : {0, 1, 2, 7, 64, 301})
        for (const int kv_heads : {1, 6})
          for (const char* form : {"full", "lower_right", "offset", "bool", "additive", "lengths"}) {
            Whole w{.dtype = dtype, .batch = 2, .heads = 6, .kv_heads = kv_heads, .rows = rows, .columns = columns, .past = columns / 2};
            const std::string f = form;
            if (f == "lower_right" || f == "offset") w.causal = f;
            if (f == "bool") w.mask = random_bools({2, 1, rows, columns}, 1, 3);
            if (f == "additive") w.mask = random_tensor(dtype, {rows, columns}, 9, 2);
            if (f == "lengths") w.column_counts = {columns / 3, columns};
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
            Whole w{.dtype = dtype, .batch = 2, .heads = 2 * n * group, .kv_heads = 2 * n, .rows = rows, .columns = rows, .value_size = value_size};
            const std::string f = form;
            if (f == "causal") w.causal = "lower_right";
            if (f == "columns") w.mask = random_tensor(dtype, {2, w.heads, 1, rows}, 9, 2);
            if (f == "bool") w.mask = random_bools({1, 1, rows, rows}, static_cast<unsigned>(rows), 3);
            w.fill(static_cast<unsigned>(cases.size()));
            cases.push_back(std::move(w));
          }
    std::vector<Spreading> list;
    for (const char* layout : {"contiguous", "zigzag"})
      for (const char* way : {"all_to_all", "all_gather", "ring"}) list.push_back({fmt::format("cuda_flat_attention_{}", way), layout, "qkv", n, 1, true});
    expect_right(cases, list);
  }
}

// Long enough that GPUs exchange the heads in groups, one beside the attention of another; some rows against loops in double.
TEST_P(AttentionRanks, LongSequencesInGroupsOfHeads) {
  if (!on_cuda()) GTEST_SKIP() << "on the CPU sequences of all lengths go the same way";
  const int n = GetParam();
  for (const auto& [layout, packed] : {std::pair{"contiguous", false}, {"zigzag", false}, {"contiguous", true}})
    for (const auto& [dtype, group, batch, rows, columns] :
         {std::tuple{DType::bf16, 1, 1, 2560, 2560}, {DType::f16, 2, 3, 1000, 1500}, {DType::f32, 1, 2, 1300, 1300}, {DType::bf16, 1, 1, 4000, 4000}}) {
      Whole w{.dtype = dtype, .batch = batch, .heads = 12 * n * group, .kv_heads = 12 * n, .rows = rows, .columns = columns, .size = 128, .value_size = rows == 1300 ? 96 : 128};
      if (rows == 4000) w.causal = "upper_left";
      w.fill(static_cast<unsigned>(rows));
      if (packed && rows != columns) continue;
      const Spreading s = {packed ? "cuda_flat_attention_all_to_all" : "attention_all_to_all", layout, "qkv", n, 1, packed};
      const auto first = run({w}, s)[0], second = run({w}, s)[0];
      for (std::size_t r = 0; r < first.size(); ++r) EXPECT_TRUE(same_bits(first[r], second[r])) << text_of(w, s) << ": runs differ on rank " << r;
      const Tensor whole = join(w, s, first, text_of(w, s));
      const Numbers in_double = {numbers(w.q), numbers(w.k), numbers(w.v)};
      std::vector<double> got, expected;
      for (std::int64_t line = 0; line < w.batch * w.heads * w.rows; line += 211) {
        const std::vector<double> row = row_of(w, in_double, line / (w.heads * w.rows), line / w.rows % w.heads, line % w.rows);
        expected.insert(expected.end(), row.begin(), row.end());
        for (std::int64_t d = 0; d < w.value_size; ++d) got.push_back(whole.at(line * w.value_size + d));
      }
      const auto count = static_cast<std::int64_t>(got.size());
      expect_close(Tensor::of(dtype, {count}, got), Tensor::of(dtype, {count}, expected), tolerance_of(dtype), text_of(w, s));
    }
}

OpCall call_with(std::vector<std::pair<std::string, AttributeValue>> attributes, std::int64_t heads, std::int64_t kv_heads) {
  const Shape q = {1, heads, 4, 8}, k = {1, kv_heads, 4, 8};
  return call_of({.kernel = "",
                  .op = "Attention",
                  .attributes = std::move(attributes),
                  .operands = {Tensor(DType::f32, q), Tensor(DType::f32, k), Tensor(DType::f32, k)}});
}

std::string refusal(std::string_view kernel, const OpCall& call) { return find_kernel(kernel)->refuse(call).value_or(""); }

TEST(AttentionRefusals, SayWhy) {
  const AttributeValue three = std::int64_t{3};
  EXPECT_EQ(refusal("attention_all_to_all", call_with({{"num_ranks", three}}, 6, 2)),
            "its 6 query and 2 kv heads do not divide by 3 ranks");
  EXPECT_EQ(refusal("attention_all_to_all", call_with({{"num_ranks", three}}, 6, 3)), "");
  EXPECT_EQ(refusal("attention_ring", call_with({}, 6, 3)), "it is for several ranks");
  EXPECT_EQ(refusal("attention_ring", call_with({{"num_ranks", three}, {"split", std::string("kv")}}, 6, 3)), "it is for split='qkv'");
  EXPECT_EQ(refusal("attention_parts", call_with({{"num_ranks", three}}, 6, 3)), "it is for split='kv'");
  EXPECT_EQ(refusal("attention_balanced", call_with({{"num_ranks", three}}, 6, 3)), "all rows cost the same");
  const AttributeValue causal = std::string("lower_right");
  OpCall late = call_with({{"num_ranks", three}, {"causal", causal}}, 6, 3);
  EXPECT_EQ(refusal("attention_balanced", late), "");
  for (const auto& [mask, reason] : {std::pair{Shape{12}, ""}, {Shape{6, 1, 12}, ""}, {Shape{4, 12}, "its mask differs by rows"}}) {
    late.operands.resize(4);
    late.operands[kMask] = Type{DType::boolean, dims_of_shape(mask)};
    EXPECT_EQ(refusal("attention_balanced", late), reason);
  }
  late.attributes.set("layout", std::string("zigzag"));
  EXPECT_EQ(refusal("attention_balanced", late), "it is for layout='contiguous'");
  for (const char* algorithm : {"all_gather", "all_to_all", "ring"})
    for (const char* kernel : {"all_gather", "all_to_all", "ring"}) {
      const OpCall call = call_with({{"num_ranks", three}, {"algorithm", std::string(algorithm)}}, 6, 3);
      const std::string expected = std::string(algorithm) == kernel ? "" : fmt::format("algorithm='{}' is asked for", algorithm);
      EXPECT_EQ(refusal(fmt::format("attention_{}", kernel), call), expected);
    }
}

TEST(AttentionBytes, AreTheFormulas) {
  const auto sent = [](const char* kernel, const KernelCase& c) { return find_kernel(kernel)->sent_bytes(call_of(c)).constant(); };
  // q and the result of 8 heads, k and v of 4, 6 rows of 16 and 12 numbers of 2 bytes, 4 ranks.
  const std::int64_t q = 8 * 6 * 16 * 2, k = 4 * 6 * 16 * 2, v = 4 * 6 * 12 * 2, out = 8 * 6 * 12 * 2;
  KernelCase c = {
      .op = "Attention",
      .attributes = {{"num_ranks", std::int64_t{4}}},
      .operands = {Tensor(DType::f16, {1, 8, 6, 16}), Tensor(DType::f16, {1, 4, 6, 16}), Tensor(DType::f16, {1, 4, 6, 12}), std::nullopt}};
  EXPECT_EQ(sent("attention_all_gather", c), 3 * (k + v));
  EXPECT_EQ(sent("attention_ring", c), 3 * (k + v));
  EXPECT_EQ(sent("attention_all_to_all", c), 3 * (q + k + v + out) / 4);
  EXPECT_EQ(sent("attention_balanced", c), 3 * (k + v) + 3 * q / 8);
  EXPECT_EQ(sent("attention_parts", c), 3 * (8 * 6 * (12 + 2)) * 4);
  const std::pair<Shape, std::int64_t> masks[] = {
      {{24}, 0}, {{1, 8, 1, 24}, 0}, {{6, 24}, 3 * 6 * 24}, {{1, 8, 6, 24}, 3 * 8 * 6 * 24 / 4}};
  for (const auto& [shape, bytes] : masks) {
    c.operands[kMask] = Tensor(DType::boolean, shape);
    EXPECT_EQ(sent("attention_all_to_all", c), 3 * (q + k + v + out) / 4 + bytes) << to_string(shape);
  }
}

void expect_error(ErrorCode code, const std::string& words, const std::function<void(KernelCase&)>& change) {
  Whole w{.rows = 6, .columns = 6};
  w.fill(1);
  try {
    run_ranks(2, [&](Group& group) {
      KernelCase c = case_of(w, {"attention_all_gather"}, group);
      change(c);
      run_kernel(c);
    });
    ADD_FAILURE() << "no error with " << words;
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), code) << error.message();
    EXPECT_NE(std::string(error.message()).find(words), std::string::npos) << error.message();
  }
}

TEST(AttentionRefusals, AtPrepare) {
  expect_error(ErrorCode::invalid_argument, "outside their groups", [](KernelCase& c) { c.group = nullptr; });
  expect_error(ErrorCode::mismatch, "over 3 ranks, its group has 2",
               [](KernelCase& c) { c.attributes.emplace_back("num_ranks", std::int64_t{3}); });
  expect_error(ErrorCode::invalid_argument, "7 rows do not fit 2 ranks with 3 each",
               [](KernelCase& c) { c.attributes.emplace_back("extent", Dim(7)); });
  expect_error(ErrorCode::invalid_argument, "-1 keys do not fit", [](KernelCase& c) { c.attributes.emplace_back("kv_extent", Dim(-1)); });
  expect_error(ErrorCode::invalid_argument, "even number of rows on each rank, not 3",
               [](KernelCase& c) { c.attributes.emplace_back("layout", std::string("zigzag")); });
  expect_error(ErrorCode::invalid_argument, "a column for each of the 6 keys",
               [](KernelCase& c) { c.operands[kMask] = Tensor(DType::boolean, {3, 3}); });
}

}  // namespace
}  // namespace tandem::test
