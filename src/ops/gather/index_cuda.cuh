// Indices as the kernels of gathers read them.
#pragma once

#include "ops/gather/gather_cuda.h"
#include "ops/move_cuda.cuh"

namespace tandem::cuda {

// The index counted from the front; -1 where it lies outside the extent.
__device__ __forceinline__ std::int64_t front_index(std::int64_t index, std::int64_t extent) {
  const std::int64_t front = index < 0 ? index + extent : index;
  return front < extent ? max(front, std::int64_t{-1}) : -1;
}

// The block that the n-th tuple names; -1 where an index lies outside. `reports`: whether this thread tells.
template <typename I>
__device__ __forceinline__ std::int64_t block_of(const TupleView& v, const I* indices, std::int64_t n, bool reports, Fault* fault) {
  std::int64_t block = quotient(static_cast<std::uint32_t>(n), v.per_batch) * v.batch_step;
  bool inside = true;
#pragma unroll 1
  for (int k = 0; k < v.length; ++k) {
    const std::int64_t index = indices[n * v.length + k], front = front_index(index, v.extents[k]);
    if (front < 0 && reports) report_index(fault, index, v.extents[k]);
    inside = inside && front >= 0;
    block += front * v.strides[k];
  }
  return inside ? block : -1;
}

template <typename Work>
void with_index_type(DType dtype, const Work& work) {
  if (dtype == DType::i32) return work(Tag<std::int32_t>());
  work(Tag<std::int64_t>());
}

// Calls `launch(view)` for parts of the rows of few enough items each.
template <typename View, typename Launch>
void for_each_part(View view, const Launch& launch) {
  const std::int64_t vectors = view.move.vectors.by, step = kMostItems / vectors;
  for (std::int64_t first = 0; first < view.move.rows; first += step) {
    const std::int64_t rows = view.move.rows - first < step ? view.move.rows - first : step;
    view.move.first = first;
    view.move.items = static_cast<std::uint32_t>(rows * vectors);
    launch(view);
  }
}

}  // namespace tandem::cuda
