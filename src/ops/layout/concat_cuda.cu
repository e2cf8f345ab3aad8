#include "device/cuda/dependent.cuh"
#include "ops/layout/concat_cuda.h"
#include "ops/move_cuda.cuh"

namespace tandem::cuda {
namespace {

template <typename U, int kItems>
__global__ void __launch_bounds__(kMoveThreads) concat(ConcatView v, U* to) {
  begin_dependent();
  const std::uint32_t begin = blockIdx.x * (kMoveThreads * kItems) + threadIdx.x;
  U values[kItems];
  std::int64_t at[kItems];
#pragma unroll
  for (int j = 0; j < kItems; ++j) {
    std::uint32_t row = begin + j * kMoveThreads;
    if (row >= v.items) break;
    const std::uint32_t column = take_index(row, v.line);
    const std::int64_t line = v.first + row;
    const U* from = static_cast<const U*>(v.from[0]);
    std::uint32_t part_begin = 0, width = v.widths[0];
#pragma unroll
    for (int k = 1; k < kConcatParts; ++k) {
      if (column < v.begins[k]) break;
      from = static_cast<const U*>(v.from[k]);
      part_begin = v.begins[k];
      width = v.widths[k];
    }
    values[j] = from[line * width + (column - part_begin)];
    at[j] = line * v.pitch + v.to_offset + column;
  }
#pragma unroll
  for (int j = 0; j < kItems; ++j) {
    if (begin + j * kMoveThreads >= v.items) break;
    to[at[j]] = values[j];
  }
}

}  // namespace

void launch_concat(ConcatView view, void* to, const Start& start) {
  const std::int64_t width = view.line.by, step = kMostItems / width;
  for (view.first = 0; view.first < view.lines; view.first += step) {
    const std::int64_t lines = view.lines - view.first < step ? view.lines - view.first : step;
    view.items = static_cast<std::uint32_t>(lines * width);
    with_moved_bytes(view.bytes, [&](auto tag) {
      using U = typename decltype(tag)::type;
      with_items_per_thread(view.items, [&](auto items) {
        start_kernel(start, concat<U, items.value>, grid_for(view.items, kMoveThreads * items.value), kMoveThreads, 0, view,
                     static_cast<U*>(to));
      });
    });
  }
}

}  // namespace tandem::cuda
