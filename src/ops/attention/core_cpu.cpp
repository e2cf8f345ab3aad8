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
#include "ops/attention/tile_cpu-inl.h"
#include "ops/convert_cpu.h"
#include "ops/half_types_cpu.h"

namespace tandem::attention {
#ifndef TANDEM_ATTENTION_TASK
#define TANDEM_ATTENTION_TASK

inline constexpr std::int64_t kLines = 132;    // queries of one task: a multiple of kTile, and all of 128 at once
inline constexpr std::int64_t kColumns = 128;  // keys of one block

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

// k[rows, size] to kt[size, kColumns], times `scale`; columns up to a whole vector are zeros. Four rows at a time: their elements of one
// column become neighbours in registers, so that memory sees whole words.
void transpose_keys(const float* HWY_RESTRICT k, std::int64_t k_step, std::int64_t rows, std::int64_t size, float scale,
                    float* HWY_RESTRICT kt) {
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

// Columns of block [begin, begin + count) of one line as numbers to add: 0, −∞ or the additive mask.
void load_bias(const AttentionProblem& p, const std::byte* row, std::int64_t begin, std::int64_t count, float* bias) {
  const bool one = p.mask_column_step == 0;
  const std::byte* from = row + bytes(p.mask_dtype, begin * p.mask_column_step);
  const std::int64_t loaded = one ? 1 : count;
  if (p.mask_dtype == DType::boolean)
    for (std::int64_t j = 0; j < loaded; ++j) bias[j] = from[j] != std::byte{0} ? 0.0f : -std::numeric_limits<float>::infinity();
  else to_floats(p.mask_dtype, from, bias, loaded);
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
const float* block_of(DType type, const std::byte* base, std::int64_t step, std::int64_t widest, std::int64_t rows, std::int64_t size,
                      float* copy, std::int64_t& out_step) {
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
    for (std::int64_t d = 0; d < p.size; ++d)
      score += q[d] * static_cast<float>(load_element(p.dtype, p.k, k_base + j * p.k_steps.row + d));
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
    const float* k =
        block_of(p.dtype, k_base + bytes(p.dtype, begin * p.k_steps.row), p.k_steps.row, p.k_steps.row, count, p.size, s.k, k_step);
    // Values are read once per tile: rows far apart would share few sets of the first-level cache.
    const float* v = block_of(p.dtype, v_base + bytes(p.dtype, begin * p.v_steps.row), p.v_steps.row, 2 * p.value_size, count, p.value_size,
                              s.v, v_step);
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
