#include "device/cuda/dependent.cuh"
#include "ops/layout/pad_cuda.h"
#include "ops/move_cuda.cuh"

namespace tandem::cuda {
namespace {

// The row of the operand that row i of the result, counted from its first, comes from; -1: the value.
__device__ __forceinline__ std::int64_t source_row(PadMode mode, std::int64_t i, std::int64_t extent) {
  if (i >= 0 && i < extent) return i;
  if (mode == PadMode::constant) return -1;
  if (mode == PadMode::edge) return i < 0 ? 0 : extent - 1;
  return i < 0 ? -i : 2 * (extent - 1) - i;
}

template <typename U, int kItems>
__global__ void __launch_bounds__(kMoveThreads) pad(PadView v, const U* x, U* y) {
  begin_dependent();
  const std::uint32_t begin = blockIdx.x * (kMoveThreads * kItems) + threadIdx.x;
  U value, values[kItems];
  memcpy(&value, &v.value, sizeof(U));
#pragma unroll
  for (int j = 0; j < kItems; ++j) {
    std::uint32_t item = begin + j * kMoveThreads;
    values[j] = value;
    if (item >= v.items) continue;
    std::int64_t from = 0;
    bool inside = true;
#pragma unroll
    for (int d = 0; d < kPadRank; ++d) {
      if (d >= v.rank) break;
      const std::int64_t row = source_row(v.mode, take_index(item, v.extents[d]) - v.before[d], v.from[d]);
      inside = inside && row >= 0;
      from += row * v.strides[d];
    }
    if (inside) values[j] = x[from];
  }
#pragma unroll
  for (int j = 0; j < kItems; ++j)
    if (begin + j * kMoveThreads < v.items) y[begin + j * kMoveThreads] = values[j];
}

// x may be y: every thread writes what it has read.
template <typename U, int kVector>
__global__ void __launch_bounds__(kMoveThreads) trilu(TriluView v, const Vector<U, kVector>* x, Vector<U, kVector>* y) {
  begin_dependent();
  const std::uint32_t item = blockIdx.x * kMoveThreads + threadIdx.x;
  if (item >= v.items) return;
  std::uint32_t rest = item;
  const std::int64_t column = std::int64_t{take_index(rest, v.columns)} * kVector, row = take_index(rest, v.rows);
  Vector<U, kVector> values = x[item];
#pragma unroll
  for (int i = 0; i < kVector; ++i) {
    const std::int64_t distance = column + i - row;
    if (v.upper ? distance < v.k : distance > v.k) values.at[i] = 0;
  }
  store_vector(y + item, values);
}

}  // namespace

void launch_pad(const PadView& view, const void* x, void* y, const Start& start) {
  if (view.items == 0) return;
  with_moved_bytes(view.bytes, [&](auto tag) {
    using U = typename decltype(tag)::type;
    with_items_per_thread(view.items, [&](auto items) {
      start_kernel(start, pad<U, items.value>, grid_for(view.items, kMoveThreads * items.value), kMoveThreads, 0, view,
                   static_cast<const U*>(x), static_cast<U*>(y));
    });
  });
}

void launch_trilu(const TriluView& view, const void* x, void* y, const Start& start) {
  if (view.items == 0) return;
  with_element_bytes(static_cast<std::size_t>(view.bytes), [&](auto tag) {
    using U = typename decltype(tag)::type;
    using Wide = Vector<U, 16 / sizeof(U)>;
    using One = Vector<U, 1>;
    const unsigned blocks = grid_for(view.items, kMoveThreads);
    if (view.vectors)
      start_kernel(start, trilu<U, 16 / sizeof(U)>, blocks, kMoveThreads, 0, view, static_cast<const Wide*>(x), static_cast<Wide*>(y));
    else start_kernel(start, trilu<U, 1>, blocks, kMoveThreads, 0, view, static_cast<const One*>(x), static_cast<One*>(y));
  });
}

}  // namespace tandem::cuda
