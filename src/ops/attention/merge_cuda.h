// Results of attention over different columns become those of all of them, by the logarithms of their sums: Σ wᵢ·outᵢ / Σ wᵢ with
// wᵢ = exp(lseᵢ), in f32.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "tandem/types.h"

namespace tandem::cuda {

struct AttentionMerge {
  DType type;          // of parts and out: f32, f16 or bf16
  std::int64_t lines;  // batch · heads · rows
  int size, count;     // of a line; parts
  const void* parts;   // [lines, size] each, `part_step` elements apart
  const float* lse;    // [lines] each, `lse_step` apart; −∞: the line attends to nothing there, and its part is not read
  std::int64_t part_step, lse_step;
  float *sums, *sums_lse;  // [lines, size] and [lines]: what was merged before and is merged with the parts; null: nothing
  bool begun;              // whether there is anything in sums yet
  // [lines / rows, row_lines, size], of whose row_lines the first `rows` are written; null: the result stays in sums.
  void* out;
  std::int64_t rows, row_lines;
  bool empty_is_nan;  // of a line that attends to nothing, else 0
};

void launch_merge_parts(const AttentionMerge& merge, cudaStream_t stream);

}  // namespace tandem::cuda
