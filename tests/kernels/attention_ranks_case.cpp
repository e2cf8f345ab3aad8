#include "kernels/attention_ranks_case.h"

#include <gtest/gtest.h>

#include <cstring>

#include "core/check.h"
#include "kernels/kernel_ranks.h"
#include "ops/attention/operands.h"
#include "ops/shape_rules.h"

namespace tandem::test {

using namespace attention;

std::int64_t local_rows(std::int64_t extent, const Spreading& s) {
  const std::int64_t parts = s.layout == "zigzag" ? 2 * s.ranks : s.ranks;
  return (extent + parts - 1) / parts * (parts / s.ranks);
}

namespace {

// Where row `local` of a rank lies in the whole sequence.
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

std::vector<double> numbers(const Tensor& t) {
  std::vector<double> all;
  for (std::int64_t i = 0; i < t.count(); ++i) all.push_back(t.at(i));
  return all;
}

}  // namespace

Numbers numbers_of(const Whole& w) { return {numbers(w.q), numbers(w.k), numbers(w.v)}; }

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

namespace {

Tensor expected_of(const Whole& w) {
  const Numbers in_double = numbers_of(w);
  std::vector<double> all;
  for (std::int64_t b = 0; b < w.batch; ++b)
    for (std::int64_t h = 0; h < w.heads; ++h)
      for (std::int64_t i = 0; i < w.rows; ++i)
        for (const double x : row_of(w, in_double, b, h, i)) all.push_back(x);
  return Tensor::of(w.dtype, {w.batch, w.heads, w.rows, w.value_size}, all);
}

// Dimension `dim` of a tensor as a rank holds it.
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
    if (whole.dtype() == DType::boolean) part.mutable_data()[at] = real ? whole.data()[from] : std::byte{1};
    else store_element(part.dtype(), part.mutable_data(), at, real ? whole.at(from) : NAN);
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
  for (const auto& [name, value] : {std::pair{"heads", w.heads}, {"kv_heads", w.kv_heads}, {"size", w.size}, {"value_size", w.value_size}})
    c.attributes.emplace_back(name, value);
  c.attributes.emplace_back("begins", std::vector<std::int64_t>{after_k, 0, after_q});
}

}  // namespace

KernelCase case_of(const Whole& w, const Spreading& s, Group& group) {
  const int rank = group.rank();
  const bool all_rows = s.split == "kv";
  KernelCase c;
  c.kernel = s.kernel;
  c.op = "Attention";
  c.threads = s.threads;
  c.group = &group;
  c.exact = w.exact;
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

std::vector<std::vector<Tensor>> run(const std::vector<Whole>& cases, const Spreading& s) {
  const auto by_rank = results_of_ranks(s.ranks, [&](Group& group) {
    std::vector<Tensor> results;
    for (const Whole& w : cases) {
      const Tensor result = run_kernel(case_of(w, s, group))[0];
      results.push_back(s.packed ? heads_first(result, w.heads) : result);
    }
    return results;
  });
  std::vector<std::vector<Tensor>> results(cases.size());
  for (std::size_t i = 0; i < cases.size(); ++i)
    for (const auto& of_rank : by_rank) results[i].push_back(of_rank.at(i));
  return results;
}

bool same_bits(const Tensor& a, const Tensor& b) {
  return a.shape() == b.shape() && a.dtype() == b.dtype() && (a.size_bytes() == 0 || std::memcmp(a.data(), b.data(), a.size_bytes()) == 0);
}

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

namespace {

void expect_right(const std::vector<Whole>& cases, const std::vector<Tensor>& expected, const Spreading& s) {
  const auto first = run(cases, s), second = run(cases, s);
  for (std::size_t i = 0; i < cases.size(); ++i) {
    const std::string what = text_of(cases[i], s);
    expect_close(join(cases[i], s, first[i], what), expected[i], tolerance_of(cases[i].dtype), what);
    for (std::size_t r = 0; r < first[i].size(); ++r)
      EXPECT_TRUE(same_bits(first[i][r], second[i][r])) << what << ": runs differ on rank " << r;
  }
}

}  // namespace

void expect_right(const std::vector<Whole>& cases, const std::vector<Spreading>& spreadings) {
  std::vector<Tensor> expected;
  for (const Whole& w : cases) expected.push_back(expected_of(w));
  for (const Spreading& s : spreadings) expect_right(cases, expected, s);
}

std::vector<Spreading> all_spreadings(int ranks, bool heads_divide) {
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

}  // namespace tandem::test
