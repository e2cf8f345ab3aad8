#include "ops/attention/partial_cpu.h"

#include <algorithm>
#include <cmath>

#include "ops/convert_cpu.h"

namespace tandem::attention {
namespace {

constexpr float kNothing = -std::numeric_limits<float>::infinity();

// Lines worth a thread.
std::int64_t grain(std::int64_t size) { return std::max<std::int64_t>(1, 16384 / std::max<std::int64_t>(size, 1)); }

}  // namespace

void PartialRows::clear(ThreadPool& pool) const {
  pool.split(lines, grain(size), [&](std::int64_t begin, std::int64_t end, int) {
    std::fill(sums + begin * size, sums + end * size, 0.0f);
    std::fill(tops + begin, tops + end, kNothing);
    std::fill(totals + begin, totals + end, 0.0f);
  });
}

void PartialRows::receive(AttentionProblem& problem) const {
  problem.out = reinterpret_cast<std::byte*>(sums);
  problem.out_dtype = DType::f32;
  problem.out_steps = {problem.heads * problem.rows * size, problem.rows * size, size};
  problem.tops = tops;
  problem.totals = totals;
  problem.empty_is_nan = false;  // another part may hold what these rows attend to
}

void PartialRows::merge(const PartialRows& part, ThreadPool& pool) const {
  pool.split(lines, grain(size), [&](std::int64_t begin, std::int64_t end, int) {
    for (std::int64_t line = begin; line < end; ++line) {
      const float top = std::max(tops[line], part.tops[line]);
      // A total of 0 is an empty part; NaN in a total comes through.
      const float weight = totals[line] == 0 ? 0.0f : totals[line] * std::exp(tops[line] - top);
      const float other = part.totals[line] == 0 ? 0.0f : part.totals[line] * std::exp(part.tops[line] - top);
      float* to = sums + line * size;
      const float* from = part.sums + line * size;
      if (weight == 0) std::copy(from, from + size, to);
      else if (other != 0) {
        const float kept = weight / (weight + other), added = other / (weight + other);
        for (std::int64_t d = 0; d < size; ++d) to[d] = kept * to[d] + added * from[d];
      }
      tops[line] = top;
      totals[line] = weight + other;
    }
  });
}

void PartialRows::store(const AttentionProblem& p, ThreadPool& pool) const {
  const float empty = p.empty_is_nan ? std::numeric_limits<float>::quiet_NaN() : 0.0f;
  pool.split(lines, grain(size), [&](std::int64_t begin, std::int64_t end, int) {
    for (std::int64_t line = begin; line < end; ++line) {
      const std::int64_t batch = line / (p.heads * p.rows), head = line / p.rows % p.heads, row = line % p.rows;
      float* from = sums + line * size;
      if (totals[line] == 0) {
        const bool counts = p.row_counts.empty() || row < p.row_counts[static_cast<std::size_t>(batch)];
        std::fill(from, from + size, counts ? empty : 0.0f);
      }
      from_floats(p.out_dtype, from,
                  p.out + bytes(p.out_dtype, batch * p.out_steps.batch + head * p.out_steps.head + row * p.out_steps.row), size);
    }
  });
}

}  // namespace tandem::attention
