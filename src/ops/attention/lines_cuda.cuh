// What attention's kernels know of their queries. The query heads that share a kv head are taken together: a `line` counts over these heads
// and their rows. For *_cuda.cu files.
#pragma once

#include "ops/attention/attention_cuda.h"
#include "ops/types_cuda.cuh"

namespace tandem::cuda {

constexpr float kLowest = -std::numeric_limits<float>::infinity();
constexpr float kLog2E = 1.4426950408889634f;

__device__ __forceinline__ std::int64_t integer_at(const DeviceIntegers& from, int i) {
  return from.wide ? static_cast<const std::int64_t*>(from.at)[i] : static_cast<const std::int32_t*>(from.at)[i];
}

struct Line {
  int head, row;
  int end;      // columns before it may be attended to, as far as diagonal and lengths say
  bool counts;  // false: zeros, whatever empty_is_nan says
};

inline __host__ __device__ int lines_of(const AttentionRun& p) { return p.heads / p.kv_heads * p.rows; }

// `line` may lie past the last one: such a line attends to nothing.
__device__ __forceinline__ Line line_of(const AttentionRun& p, int batch, int kv_head, int line) {
  Line result = {kv_head * (p.heads / p.kv_heads) + line / p.rows, line % p.rows, 0, line < lines_of(p)};
  if (p.row_counts.at) result.counts = result.counts && p.first_row + result.row < integer_at(p.row_counts, batch);
  if (!result.counts) return result;
  std::int64_t end = p.columns;
  if (p.column_counts.at) end = min(end, integer_at(p.column_counts, batch) - p.first_column);
  if (p.causal) end = min(end, result.row + p.diagonal + (p.past.at ? integer_at(p.past, 0) : 0) + 1);
  result.end = static_cast<int>(max(end, std::int64_t{0}));
  return result;
}

__device__ __forceinline__ std::int64_t offset_of(const AttentionSteps& steps, int batch, const Line& line) {
  return batch * steps.batch + line.head * steps.head + line.row * steps.row;
}

// Where a line is in dense [batch, heads, rows].
__device__ __forceinline__ std::int64_t dense_line(const AttentionRun& p, int batch, int kv_head, int line) {
  return (std::int64_t{batch} * p.kv_heads + kv_head) * lines_of(p) + line;
}
__device__ __forceinline__ std::int64_t dense_line(const AttentionRun& p, int batch, const Line& line) {
  return (std::int64_t{batch} * p.heads + line.head) * p.rows + line.row;
}

// To be called once for a line that exists. `top`: the line's largest score, `total`: its sum of exp(score − top).
__device__ __forceinline__ void store_total(const AttentionRun& p, int batch, int kv_head, int line, float top, float total) {
  if (p.lines) p.lines[dense_line(p, batch, kv_head, line)] = make_float2(top, total);
  if (p.lse) p.lse[dense_line(p, batch, kv_head, line)] = total == 0 ? kLowest : top + logf(total);
}

// Value `d` of a line's result. `offset`: of the line in `out`, `dense`: dense_line().
template <typename T>
__device__ __forceinline__ void store_value(const AttentionRun& p, std::int64_t offset, std::int64_t dense, int d, float value) {
  if (p.sums) p.sums[dense * p.value_size + d] = value;
  else static_cast<T*>(p.out)[offset + d] = from_float<T>(value);
}

// What the mask adds at an offset: −∞ where nothing may be attended to.
__device__ __forceinline__ float mask_at(const AttentionRun& p, std::int64_t at) {
  switch (p.mask_type) {
    case DType::f32: return static_cast<const float*>(p.mask)[at];
    case DType::f16: return to_float(static_cast<const __half*>(p.mask)[at]);
    case DType::bf16: return to_float(static_cast<const __nv_bfloat16*>(p.mask)[at]);
    default: return static_cast<const std::uint8_t*>(p.mask)[at] != 0 ? 0.0f : kLowest;
  }
}

// A score from the product of a query and a key. `mask_row`: offset of the line's first mask element. What is masked may be anything.
__device__ __forceinline__ float score_of(const AttentionRun& p, float product, std::int64_t mask_row, int column) {
  float score = product * p.scale;
  if (p.softcap > 0) score = p.softcap * tanhf(score / p.softcap);
  if (p.masked) {
    const float more = mask_at(p, mask_row + column * p.mask_column_step);
    score = more == kLowest ? kLowest : score + more;
  }
  return score;
}

__device__ __forceinline__ std::int64_t part_index(const AttentionRun& p, const AttentionParts& parts, int group, int part, int line) {
  return (std::int64_t{group} * parts.count + part) * lines_of(p) + line;
}

// The factor of sums that are relative to a largest score `own` where others have a larger one.
__device__ __forceinline__ float part_weight(float own, float top) { return top == kLowest ? 1.0f : expf(own - top); }

// One line again, by a warp, skipping weights of zero: where something that is masked, or next to nothing, is no number.
// `top` is the line's largest score.
template <typename T>
__device__ __noinline__ void careful_line(const AttentionRun& p, int batch, int kv_head, int index, float top) {
  constexpr int kMost = kMostAttentionSize / 32;
  const int lane = threadIdx.x % 32;
  const Line line = line_of(p, batch, kv_head, index);
  const T* q = static_cast<const T*>(p.q) + offset_of(p.q_steps, batch, line);
  const std::int64_t mask_row = offset_of(p.mask_steps, batch, line);
  float total = 0, sums[kMost] = {};
  for (int j = 0; j < line.end; ++j) {
    const T* k = static_cast<const T*>(p.k) + batch * p.k_steps.batch + kv_head * p.k_steps.head + j * p.k_steps.row;
    const T* v = static_cast<const T*>(p.v) + batch * p.v_steps.batch + kv_head * p.v_steps.head + j * p.v_steps.row;
    float product = 0;
    for (int d = lane; d < p.size; d += 32) product += to_float(q[d]) * to_float(k[d]);
    for (int step = 16; step > 0; step /= 2) product += __shfl_xor_sync(0xffffffff, product, step);
    const float weight = expf(score_of(p, product, mask_row, j) - top);
    total += weight;
    if (weight == 0) continue;
#pragma unroll
    for (int i = 0; i < kMost; ++i)
      if (lane + 32 * i < p.value_size) sums[i] += weight * to_float(v[lane + 32 * i]);
  }
  const std::int64_t offset = offset_of(p.out_steps, batch, line), dense = dense_line(p, batch, line);
#pragma unroll
  for (int i = 0; i < kMost; ++i)
    if (lane + 32 * i < p.value_size) store_value<T>(p, offset, dense, lane + 32 * i, sums[i] / total);
}

}  // namespace tandem::cuda
