// Attention of one device over strided views, in blocks of keys with a running maximum (FlashAttention's scheme).
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
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
  // Both or neither, [batch, heads, rows]: each row's largest score and its sum of exp(score − top), for merging with the results of
  // other columns. −∞ and 0 for rows that attend to nothing. (A logarithm of the sum would drown in the −1e38 of padded rows' masks.)
  float *tops = nullptr, *totals = nullptr;

  const std::byte* mask = nullptr;  // null: none
  DType mask_dtype = DType::boolean;
  Steps mask_steps;  // 0 where the mask broadcasts
  std::int64_t mask_column_step = 0;

  // Row i may attend to columns j ≤ i + diagonal; kNoDiagonal: to all.
  static constexpr std::int64_t kNoDiagonal = std::numeric_limits<std::int64_t>::max() / 2;
  std::int64_t diagonal = kNoDiagonal;
  // Per batch entry: rows from there on are zeros, columns from there on are not attended to. Empty: all count.
  std::span<const std::int64_t> row_counts, column_counts;
  float scale = 1, softcap = 0;
  bool empty_is_nan = false;

  // On GPUs, which know lengths late: where the first row and column are in the whole sequences, over which lengths count.
  std::int64_t first_row = 0, first_column = 0;
};

// Bytes that run_attention needs, aligned to 64.
std::size_t attention_workspace(const AttentionProblem& problem, int threads);
// `beside`, if any, runs once on one of the pool's threads while the others begin; its exception comes out here.
void run_attention(const AttentionProblem& problem, ThreadPool& pool, std::byte* workspace, const std::function<void()>& beside = {});

}  // namespace tandem::attention
