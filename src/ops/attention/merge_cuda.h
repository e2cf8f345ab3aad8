// Results of attention over different columns become those of all of them, in f32: Σ wᵢ·valuesᵢ / Σ wᵢ with wᵢ = totalᵢ·exp(topᵢ − largest
// top), of a line's largest score and sum of exp(score − top) in part i. A part of weight 0 adds nothing.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "ops/attention/attention_cuda.h"

namespace tandem::cuda {

struct AttentionMerge {
  DType type;                       // of out: f32, f16 or bf16
  std::int64_t lines, batch_lines;  // batch · heads · rows, and of one batch entry
  int size, count;                  // of a line; parts
  const void* values;               // [lines, size] each, `value_step` elements apart: f32 with `totals`, of `type` with `lse`
  const float2* totals;             // [lines] each, `line_step` apart: top and total, −∞ and 0 where the line attends to nothing there
  const float* lse;                 // in their place: top + log(total)
  std::int64_t value_step, line_step;
  float* sums;          // [lines, size], with sums_totals: what was merged before and is merged with the parts; null: nothing
  float2* sums_totals;  // [lines]
  bool begun;           // whether there is anything in sums yet
  // [lines / rows, row_lines, size], of whose row_lines the first `rows` are written; null: the result stays in sums.
  void* out;
  std::int64_t rows, row_lines;
  // Of a line that attends to nothing NaN, else 0; but 0 from row_counts on, which counts as AttentionRun's does.
  bool empty_is_nan;
  DeviceIntegers row_counts;
  std::int64_t first_row;
};

void launch_merge_parts(const AttentionMerge& merge, cudaStream_t stream);

}  // namespace tandem::cuda
