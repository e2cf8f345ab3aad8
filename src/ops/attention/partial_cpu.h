// Results of attention over some of the columns, and how they become those of all columns.
#pragma once

#include "ops/attention/core_cpu.h"

namespace tandem::attention {

// A view of floats(lines, size) numbers, one after the other; lines = [batch, heads, rows].
struct PartialRows {
  PartialRows(float* memory, std::int64_t lines_, std::int64_t size_)
      : lines(lines_), size(size_), sums(memory), tops(memory + lines * size), totals(tops + lines) {}
  static std::int64_t floats(std::int64_t lines, std::int64_t size) { return lines * (size + 2); }

  // Rows that attend to nothing.
  void clear(ThreadPool& pool) const;
  // Gives a problem over some columns its results here.
  void receive(AttentionProblem& problem) const;
  // Σ wᵢ·sumsᵢ / Σ wᵢ with wᵢ = totalᵢ·exp(topᵢ − largest top), for these and the part's, into these. A weight of 0 adds nothing.
  void merge(const PartialRows& part, ThreadPool& pool) const;
  // The results in memory of the problem's `out`, where only rows that attend to nothing may still be decided.
  void store(const AttentionProblem& problem, ThreadPool& pool) const;

  std::int64_t lines, size;
  float *sums, *tops, *totals;  // sums are already divided by totals
};

}  // namespace tandem::attention
