#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/attention/core_cpu.cpp"
#include "hwy/foreach_target.h"
// Highway's order: foreach_target first.
#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>

#include "core/check.h"
#include "core/numeric.h"
#include "core/tensor.h"
#include "ops/attention/core_cpu.h"
#include "ops/convert_cpu.h"
#include "ops/half_types_cpu.h"
#include "ops/vector_cpu-inl.h"

namespace tandem::attention {
#ifndef TANDEM_ATTENTION_TASK
#define TANDEM_ATTENTION_TASK

inline constexpr std::int64_t kLines = 132;    // queries of one task: a multiple of kTile, and all of 128 at once
inline constexpr std::int64_t kColumns = 128;  // keys of one block
inline constexpr std::int64_t kTile = 6;       // queries of one micro-kernel

// Queries that share their keys: `line` counts over the query heads of one kv head and their rows.
struct Task {
  std::int64_t batch, kv_head, first_line, lines;
};

// A task's f32 memory.
struct Scratch {
  float *q, *k, *k_transposed, *v, *sums, *scores, *bias, *tops, *totals;

  static std::int64_t padded(std::int64_t n) { return (n + 15) / 16 * 16; }
  static std::int64_t floats(const AttentionProblem& p) {
    return kLines * padded(p.size) + kColumns * padded(p.size) * 2 + kColumns * padded(p.value_size) + kLines * padded(p.value_size) +
           kTile * kColumns + kColumns + 2 * padded(kLines);
  }
  Scratch(const AttentionProblem& p, float* at) {
    const auto take = [&at](std::int64_t count) {
      float* here = at;
      at += count;
      return here;
    };
    q = take(kLines * padded(p.size));
    k = take(kColumns * padded(p.size));
    k_transposed = take(kColumns * padded(p.size));
    v = take(kColumns * padded(p.value_size));
    sums = take(kLines * padded(p.value_size));
    scores = take(kTile * kColumns);
    bias = take(kColumns);
    tops = take(padded(kLines));
    totals = take(padded(kLines));
  }
};
#endif
}  // namespace tandem::attention

HWY_BEFORE_NAMESPACE();
namespace tandem::attention {
namespace HWY_NAMESPACE {

using namespace tandem::HWY_NAMESPACE;

constexpr int kVectors = HWY_MAX_BYTES >= 64 && HWY_TARGET == HWY_AVX3 ? 4 : 2;  // of one micro-kernel

// c[kRows, n] (+)= a[kRows, k]·b[k, n] for kCount vectors of columns, of which the last has `part` lanes if kPart.
template <int kRows, int kCount, bool kPart>
HWY_INLINE void multiply(const float* HWY_RESTRICT a, std::int64_t a_step, const float* HWY_RESTRICT b, std::int64_t b_step, float* HWY_RESTRICT c,
                         std::int64_t c_step, std::int64_t k, bool add, std::size_t part) {
  const F32 d;
  const std::size_t lanes = hn::Lanes(d);
  V32 sum[kRows][kCount];
  const auto at = [&](const float* p, int j) {
    const float* from = p + static_cast<std::size_t>(j) * lanes;
    return kPart && j == kCount - 1 ? load_part(d, from, part) : hn::LoadU(d, from);
  };
  for (int i = 0; i < kRows; ++i)
    for (int j = 0; j < kCount; ++j) sum[i][j] = add ? at(c + i * c_step, j) : hn::Zero(d);
  for (std::int64_t l = 0; l < k; ++l, b += b_step) {
    V32 line[kCount];
    for (int j = 0; j < kCount; ++j) line[j] = at(b, j);
    for (int i = 0; i < kRows; ++i) {
      const V32 x = hn::Set(d, a[i * a_step + l]);
      for (int j = 0; j < kCount; ++j) sum[i][j] = hn::MulAdd(x, line[j], sum[i][j]);
    }
  }
  for (int i = 0; i < kRows; ++i)
    for (int j = 0; j < kCount; ++j) {
      float* to = c + i * c_step + static_cast<std::size_t>(j) * lanes;
      if (kPart && j == kCount - 1) store_part(d, sum[i][j], to, part);
      else hn::StoreU(sum[i][j], d, to);
    }
}

template <int kRows>
void multiply_columns(const float* a, std::int64_t a_step, const float* b, std::int64_t b_step, float* c, std::int64_t c_step,
                      std::int64_t k, std::int64_t n, bool add) {
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(F32()));
  std::int64_t j = 0;
  for (; j + kVectors * lanes <= n; j += kVectors * lanes) multiply<kRows, kVectors, false>(a, a_step, b + j, b_step, c + j, c_step, k, add, 0);
  for (; j + 2 * lanes <= n; j += 2 * lanes) multiply<kRows, 2, false>(a, a_step, b + j, b_step, c + j, c_step, k, add, 0);
  for (; j + lanes <= n; j += lanes) multiply<kRows, 1, false>(a, a_step, b + j, b_step, c + j, c_step, k, add, 0);
  if (j < n) multiply<kRows, 1, true>(a, a_step, b + j, b_step, c + j, c_step, k, add, static_cast<std::size_t>(n - j));
}

// c[rows, n] (+)= a[rows, k]·b[k, n] for rows ≤ kTile.
void multiply_tile(std::int64_t rows, const float* a, std::int64_t a_step, const float* b, std::int64_t b_step, float* c,
                   std::int64_t c_step, std::int64_t k, std::int64_t n, bool add) {
  if (rows == kTile) return multiply_columns<kTile>(a, a_step, b, b_step, c, c_step, k, n, add);
  std::int64_t i = 0;
  for (; i + 2 <= rows; i += 2) multiply_columns<2>(a + i * a_step, a_step, b, b_step, c + i * c_step, c_step, k, n, add);
  if (i < rows) multiply_columns<1>(a + i * a_step, a_step, b, b_step, c + i * c_step, c_step, k, n, add);
}

// k[rows, size] to kt[size, kColumns], times `scale`; columns up to a whole vector are zeros. Four rows at a time: their elements of one
// column become neighbours in registers, so that memory sees whole words.
void transpose_keys(const float* HWY_RESTRICT k, std::int64_t k_step, std::int64_t rows, std::int64_t size, float scale, float* HWY_RESTRICT kt) {
  const F32 d;
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(d));
  const V32 factor = hn::Set(d, scale);
  HWY_ALIGN float tile[HWY_MAX_BYTES];
  for (std::int64_t row = 0; row < Scratch::padded(rows); row += 4)
    for (std::int64_t begin = 0; begin < size; begin += lanes) {
      const std::int64_t width = std::min(lanes, size - begin);
      const auto line = [&](std::int64_t i) {
        const float* from = k + (row + i) * k_step + begin;
        if (row + i >= rows) return hn::Zero(d);
        return hn::Mul(factor, width == lanes ? hn::LoadU(d, from) : load_part(d, from, static_cast<std::size_t>(width)));
      };
      hn::StoreInterleaved4(line(0), line(1), line(2), line(3), d, tile);
      for (std::int64_t i = 0; i < width; ++i) std::memcpy(kt + (begin + i) * kColumns + row, tile + 4 * i, 4 * sizeof(float));
    }
}

// One row of scores [count] against the running maximum: leaves exp(score − top) there and zeros up to `all`, updates top and
// total, and returns what the sums so far must be multiplied by.
float update_row(float* scores, std::int64_t count, std::int64_t all, const float* bias, float softcap, float& top, float& total) {
  const F32 d;
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(d));
  const V32 lowest = hn::Set(d, -std::numeric_limits<float>::infinity());
  V32 tops = lowest;
  for (std::int64_t j = 0; j < count; j += lanes) {
    V32 s = hn::LoadU(d, scores + j);
    if (softcap > 0) s = hn::Mul(hn::Set(d, softcap), tanh(d, hn::Mul(s, hn::Set(d, 1 / softcap))));
    if (bias) {
      const V32 more = hn::LoadU(d, bias + j);
      s = hn::IfThenElse(hn::Eq(more, lowest), lowest, hn::Add(s, more));  // what is masked may be anything
    }
    if (j + lanes > count) s = hn::IfThenElse(hn::FirstN(d, static_cast<std::size_t>(count - j)), s, lowest);
    tops = hn::Max(s, tops);  // in this order NaN leaves the maximum alone
    hn::StoreU(s, d, scores + j);
  }
  const float new_top = std::max(top, hn::GetLane(hn::MaxOfLanes(d, tops)));
  const bool nothing = new_top == -std::numeric_limits<float>::infinity();
  const V32 shift = hn::Set(d, nothing ? 0.0f : new_top);
  V32 sum = hn::Zero(d);
  for (std::int64_t j = 0; j < count; j += lanes) {
    const V32 e = exp_below(d, hn::Sub(hn::LoadU(d, scores + j), shift));
    sum = hn::Add(sum, e);
    hn::StoreU(e, d, scores + j);
  }
  for (std::int64_t j = round_up(count, lanes); j < all; ++j) scores[j] = 0;
  const bool first = top == -std::numeric_limits<float>::infinity();  // nothing to keep yet
  const float kept = nothing || top == new_top ? 1.0f : first ? 0.0f : std::exp(top - new_top);
  total = total * kept + hn::GetLane(hn::SumOfLanes(d, sum));
  top = new_top;
  return kept;
}

void scale_row(float* x, std::int64_t n, float by) {
  const F32 d;
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(d));
  const V32 factor = hn::Set(d, by);
  std::int64_t i = 0;
  for (; i + lanes <= n; i += lanes) hn::StoreU(hn::Mul(hn::LoadU(d, x + i), factor), d, x + i);
  for (; i < n; ++i) x[i] *= by;
}

template <typename T>
void read_row(const T* from, float* to, std::int64_t n) {
  const F32 d;
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(d));
  std::int64_t i = 0;
  for (; i + lanes <= n; i += lanes) hn::StoreU(load(d, from + i), d, to + i);
  if (i < n) store_part(d, load_part(d, from + i, static_cast<std::size_t>(n - i)), to + i, static_cast<std::size_t>(n - i));
}

// False if an element is infinite or no number; `to` is written all the same.
template <typename T>
bool write_row(const float* from, float by, T* to, std::int64_t n) {
  const F32 d;
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(d));
  const V32 factor = hn::Set(d, by);
  V32 check = hn::Zero(d);
  std::int64_t i = 0;
  for (; i + lanes <= n; i += lanes) {
    const V32 v = hn::Mul(hn::LoadU(d, from + i), factor);
    check = hn::MulAdd(v, hn::Zero(d), check);
    store(d, v, to + i);
  }
  if (i < n) {
    const V32 v = hn::Mul(load_part(d, from + i, static_cast<std::size_t>(n - i)), factor);
    check = hn::MulAdd(v, hn::Zero(d), check);
    store_part(d, v, to + i, static_cast<std::size_t>(n - i));
  }
  return hn::AllTrue(d, hn::Eq(check, hn::Zero(d)));
}

// Columns of block [begin, begin + count) of one line as numbers to add: 0, −∞ or the additive mask.
void load_bias(const AttentionProblem& p, const std::byte* row, std::int64_t begin, std::int64_t count, float* bias) {
  const bool one = p.mask_column_step == 0;
  const std::byte* from = row + bytes(p.mask_dtype, begin * p.mask_column_step);
  const std::int64_t loaded = one ? 1 : count;
  if (p.mask_dtype == DType::boolean)
    for (std::int64_t j = 0; j < loaded; ++j) bias[j] = from[j] != std::byte{0} ? 0.0f : -std::numeric_limits<float>::infinity();
  else
    to_floats(p.mask_dtype, from, bias, loaded);
  if (one) std::fill(bias, bias + count, bias[0]);
  std::fill(bias + count, bias + Scratch::padded(count), 0.0f);
}

// The lines of a task: heads, rows and where each one's columns end are counted up once, since divisions per line would show.
class Lines {
 public:
  Lines(const AttentionProblem& p, const Task& task) : p_(p), batch_(task.batch), mask_bytes_(bytes(p.mask_dtype, 1)) {
    const auto count_of = [&](std::span<const std::int64_t> counts, std::int64_t all) {
      return counts.empty() ? all : std::clamp<std::int64_t>(counts[static_cast<std::size_t>(task.batch)], 0, all);
    };
    const std::int64_t columns = count_of(p.column_counts, p.columns), rows = count_of(p.row_counts, p.rows);
    Line line = {task.kv_head * (p.heads / p.kv_heads) + task.first_line / p.rows, task.first_line % p.rows, 0, false};
    for (std::int64_t i = 0; i < task.lines; ++i) {
      line.counts = line.row < rows;
      line.end = line.counts ? std::clamp<std::int64_t>(line.row + p.diagonal + 1, 0, columns) : 0;
      lines_[static_cast<std::size_t>(i)] = line;
      if (++line.row == p.rows) line.row = 0, ++line.head;
    }
  }
  std::int64_t head(std::int64_t line) const { return at(line).head; }
  std::int64_t row(std::int64_t line) const { return at(line).row; }
  bool counts(std::int64_t line) const { return at(line).counts; }
  // Columns this line may attend to, as far as diagonal and lengths say.
  std::int64_t end(std::int64_t line) const { return at(line).end; }
  std::int64_t offset(std::int64_t line, const Steps& s) const { return batch_ * s.batch + at(line).head * s.head + at(line).row * s.row; }
  const std::byte* mask(std::int64_t line) const { return p_.mask + offset(line, p_.mask_steps) * static_cast<std::int64_t>(mask_bytes_); }

 private:
  struct Line {
    std::int64_t head, row, end;
    bool counts;
  };
  const Line& at(std::int64_t line) const { return lines_[static_cast<std::size_t>(line)]; }

  const AttentionProblem& p_;
  std::int64_t batch_;
  std::size_t mask_bytes_;
  std::array<Line, kLines> lines_;
};

// Keys or values of a block as f32: in place, or copied into `copy` if they are of another type or more than `widest` elements apart.
const float* block_of(DType type, const std::byte* base, std::int64_t step, std::int64_t widest, std::int64_t rows, std::int64_t size, float* copy,
                      std::int64_t& out_step) {
  if (type == DType::f32 && step <= widest) {
    out_step = step;
    return reinterpret_cast<const float*>(base);
  }
  out_step = Scratch::padded(size);
  with_float_type(type, [&](auto* t) {
    const auto* from = reinterpret_cast<decltype(t)>(const_cast<std::byte*>(base));
    for (std::int64_t j = 0; j < rows; ++j) read_row(from + j * step, copy + j * out_step, size);
  });
  return copy;
}

// One line by loops that skip weights of zero: where something that is masked is no number.
void careful_line(const AttentionProblem& p, const Task& task, const Lines& lines, std::int64_t line, const Scratch& s, float* out) {
  const std::int64_t end = lines.end(line);
  const float* q = s.q + line * Scratch::padded(p.size);
  const std::int64_t k_base = task.batch * p.k_steps.batch + task.kv_head * p.k_steps.head;
  const std::int64_t v_base = task.batch * p.v_steps.batch + task.kv_head * p.v_steps.head;
  const float top = s.tops[line];
  std::fill(out, out + p.value_size, 0.0f);
  float total = 0;
  for (std::int64_t j = 0; j < end; ++j) {
    float score = 0;
    for (std::int64_t d = 0; d < p.size; ++d) score += q[d] * static_cast<float>(load_element(p.dtype, p.k, k_base + j * p.k_steps.row + d));
    score *= p.scale;
    if (p.softcap > 0) score = p.softcap * std::tanh(score / p.softcap);
    if (p.mask) {
      const std::int64_t at = lines.offset(line, p.mask_steps) + j * p.mask_column_step;
      const float more = p.mask_dtype != DType::boolean ? static_cast<float>(load_element(p.mask_dtype, p.mask, at))
                         : p.mask[at] != std::byte{0}   ? 0.0f
                                                        : -std::numeric_limits<float>::infinity();
      score = more == -std::numeric_limits<float>::infinity() ? more : score + more;
    }
    const float weight = std::exp(score - top);
    total += weight;
    for (std::int64_t d = 0; d < p.value_size && weight != 0; ++d)
      out[d] += weight * static_cast<float>(load_element(p.dtype, p.v, v_base + j * p.v_steps.row + d));
  }
  scale_row(out, p.value_size, 1 / total);
}

template <typename T>
void store_lines(const AttentionProblem& p, const Task& task, const Lines& lines, const Scratch& s) {
  const std::int64_t step = Scratch::padded(p.value_size);
  for (std::int64_t line = 0; line < task.lines; ++line) {
    float* sums = s.sums + line * step;
    T* out = reinterpret_cast<T*>(p.out) + lines.offset(line, p.out_steps);
    const float top = s.tops[line], total = s.totals[line];
    const bool empty = top == -std::numeric_limits<float>::infinity() && !std::isnan(total);
    if (empty) {
      const bool nan = p.empty_is_nan && lines.counts(line);
      std::fill(sums, sums + p.value_size, nan ? std::numeric_limits<float>::quiet_NaN() : 0.0f);
      write_row(sums, 1, out, p.value_size);
    } else if (!write_row(sums, 1 / total, out, p.value_size)) {
      careful_line(p, task, lines, line, s, sums);
      write_row(sums, 1, out, p.value_size);
    }
    if (p.tops) {
      const std::int64_t at = (task.batch * p.heads + lines.head(line)) * p.rows + lines.row(line);
      p.tops[at] = top;
      p.totals[at] = total;
    }
  }
}

// Lines first … first+rows of the task against one block of keys.
void attend_tile(const AttentionProblem& p, const Lines& lines, const Scratch& s, std::int64_t first, std::int64_t rows, std::int64_t begin,
                 std::int64_t count, const float* v, std::int64_t v_step, const std::byte*& bias_row) {
  std::array<std::int64_t, kTile> ends{};
  std::int64_t longest = 0;
  for (std::int64_t i = 0; i < rows; ++i) {
    ends[static_cast<std::size_t>(i)] = std::clamp<std::int64_t>(lines.end(first + i) - begin, 0, count);
    longest = std::max(longest, ends[static_cast<std::size_t>(i)]);
  }
  if (longest == 0) return;
  const std::int64_t q_step = Scratch::padded(p.size), sum_step = Scratch::padded(p.value_size);
  multiply_tile(rows, s.q + first * q_step, q_step, s.k_transposed, kColumns, s.scores, kColumns, p.size, Scratch::padded(longest), false);
  for (std::int64_t i = 0; i < rows; ++i) {
    const std::int64_t line = first + i;
    if (p.mask) {
      const std::byte* row = lines.mask(line);
      if (row != bias_row) load_bias(p, row, begin, count, s.bias);
      bias_row = row;
    }
    const float kept = update_row(s.scores + i * kColumns, ends[static_cast<std::size_t>(i)], longest, p.mask ? s.bias : nullptr, p.softcap,
                                  s.tops[line], s.totals[line]);
    if (begin > 0 && kept != 1.0f) scale_row(s.sums + line * sum_step, p.value_size, kept);
  }
  multiply_tile(rows, s.scores, kColumns, v, v_step, s.sums + first * sum_step, sum_step, longest, p.value_size, begin > 0);
}

void attend(const AttentionProblem& p, const Task& task, float* memory) {
  const Scratch s(p, memory);
  const Lines lines(p, task);
  const std::int64_t q_step = Scratch::padded(p.size), sum_step = Scratch::padded(p.value_size);
  std::int64_t end = 0;
  with_float_type(p.dtype, [&](auto* t) {
    const auto* q = reinterpret_cast<decltype(t)>(const_cast<std::byte*>(p.q));
    for (std::int64_t line = 0; line < task.lines; ++line) read_row(q + lines.offset(line, p.q_steps), s.q + line * q_step, p.size);
  });
  for (std::int64_t line = 0; line < task.lines; ++line) {
    s.tops[line] = -std::numeric_limits<float>::infinity();
    s.totals[line] = 0;
    end = std::max(end, lines.end(line));
  }
  std::fill(s.sums, s.sums + task.lines * sum_step, 0.0f);
  const std::byte* k_base = p.k + bytes(p.dtype, task.batch * p.k_steps.batch + task.kv_head * p.k_steps.head);
  const std::byte* v_base = p.v + bytes(p.dtype, task.batch * p.v_steps.batch + task.kv_head * p.v_steps.head);
  for (std::int64_t begin = 0; begin < end; begin += kColumns) {
    const std::int64_t count = std::min(kColumns, end - begin);
    std::int64_t k_step = 0, v_step = 0;
    const float* k = block_of(p.dtype, k_base + bytes(p.dtype, begin * p.k_steps.row), p.k_steps.row, p.k_steps.row, count, p.size, s.k, k_step);
    // Values are read once per tile: rows far apart would share few sets of the first-level cache.
    const float* v = block_of(p.dtype, v_base + bytes(p.dtype, begin * p.v_steps.row), p.v_steps.row, 2 * p.value_size, count, p.value_size, s.v, v_step);
    transpose_keys(k, k_step, count, p.size, p.scale, s.k_transposed);
    const std::byte* bias_row = nullptr;
    for (std::int64_t first = 0; first < task.lines; first += kTile)
      attend_tile(p, lines, s, first, std::min(kTile, task.lines - first), begin, count, v, v_step, bias_row);
  }
  with_float_type(p.out_dtype, [&](auto* t) { store_lines<std::remove_pointer_t<decltype(t)>>(p, task, lines, s); });
}

}  // namespace HWY_NAMESPACE
}  // namespace tandem::attention
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace tandem::attention {
HWY_EXPORT(attend);

std::size_t attention_workspace(const AttentionProblem& problem, int threads) {
  return static_cast<std::size_t>(threads * round_up(Scratch::floats(problem), 16)) * sizeof(float);
}

void run_attention(const AttentionProblem& p, ThreadPool& pool, std::byte* workspace, const std::function<void()>& beside) {
  const std::int64_t all = p.kv_heads == 0 ? 0 : p.heads / p.kv_heads * p.rows, groups = p.batch * p.kv_heads;
  if (all == 0 || groups == 0) return beside ? beside() : void();
  // Fewer lines per task where there are too few tasks to go round.
  const std::int64_t fair = round_up(ceil_divide(all * groups, pool.threads()), kTile);
  const std::int64_t lines = std::clamp<std::int64_t>(fair, kTile, kLines), chunks = ceil_divide(all, lines);
  const std::int64_t floats = round_up(Scratch::floats(p), 16);
  pool.each(groups * chunks + (beside ? 1 : 0), [&](std::int64_t index, int thread) {
    if (beside && index-- == 0) return beside();
    const std::int64_t group = index / chunks, first = index % chunks * lines;
    const Task task = {group / p.kv_heads, group % p.kv_heads, first, std::min(lines, all - first)};
    HWY_DYNAMIC_DISPATCH(attend)(p, task, reinterpret_cast<float*>(workspace) + thread * floats);
  });
}

}  // namespace tandem::attention
#endif
