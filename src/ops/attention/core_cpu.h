// Attention of one device over strided views, in blocks of keys with a running maximum (FlashAttention's scheme).
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>

#include "device/cpu/thread_pool.h"
#include "tandem/types.h"

namespace tandem::attention {

// Steps between neighbours, in elements; elements of a row are contiguous. [B,H,S,D] and [B,S,H,D] both fit.
struct Steps {
  std::int64_t batch = 0, head = 0, row = 0;
};

struct AttentionProblem {
  DType dtype = DType::f32;  // of q, k, v: f32, f16 or bf16
  std::int64_t batch = 0, heads = 0, kv_heads = 0, rows = 0, columns = 0, size = 0, value_size = 0;
  const std::byte *q = nullptr, *k = nullptr, *v = nullptr;
  Steps q_steps, k_steps, v_steps, out_steps;

  std::byte* out = nullptr;
  DType out_dtype = DType::f32;
  // Natural logarithm of each row's sum of exponentials [batch, heads, rows], −∞ for rows that attend to nothing; or null.
  float* log_sums = nullptr;

  const std::byte* mask = nullptr;  // null: none
  DType mask_dtype = DType::boolean;
  Steps mask_steps;                 // 0 where the mask broadcasts
  std::int64_t mask_column_step = 0;

  // Row i may attend to columns j ≤ i + diagonal; kNoDiagonal: to all.
  static constexpr std::int64_t kNoDiagonal = std::numeric_limits<std::int64_t>::max() / 2;
  std::int64_t diagonal = kNoDiagonal;
  // Per batch entry: rows from there on are zeros, columns from there on are not attended to. Empty: all count.
  std::span<const std::int64_t> row_counts, column_counts;
  float scale = 1, softcap = 0;
  bool empty_is_nan = false;
};

// Bytes that run_attention needs, aligned to 64.
std::size_t attention_workspace(const AttentionProblem& problem, int threads);
void run_attention(const AttentionProblem& problem, ThreadPool& pool, std::byte* workspace);

// Merges partial results of the same rows over different columns, in the order given: out = Σ wᵢ·partᵢ / Σ wᵢ with
// wᵢ = exp(log_sumᵢ − max). `parts` are f32 [rows, size], `log_sums` [rows]; a row without any gives `empty`.
// `merged` is f32 [rows, size]; merged_log_sums may be null.
void merge_parts(std::span<const float* const> parts, std::span<const float* const> log_sums, std::int64_t rows, std::int64_t size, float empty,
                 float* merged, float* merged_log_sums);

}  // namespace tandem::attention
