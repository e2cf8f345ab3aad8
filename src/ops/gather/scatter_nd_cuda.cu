#include "ops/gather/index_cuda.cuh"

#include "device/cuda/dependent.cuh"

namespace tandem::cuda {
namespace {

// The last row for each block, counted from 1.
template <typename I>
__global__ void __launch_bounds__(kMoveThreads)
    find_winners(TupleView v, const I* __restrict__ indices, std::uint32_t* winners, Fault* fault) {
  const std::uint32_t row = blockIdx.x * kMoveThreads + threadIdx.x;
  if (row >= v.move.rows) return;
  const std::int64_t block = block_of(v, indices, row, false, fault);
  if (block >= 0) atomicMax(winners + block, row + 1);
}

template <typename U, typename I>
__global__ void __launch_bounds__(kMoveThreads) scatter_nd(TupleView v, const U* __restrict__ updates, const I* __restrict__ indices,
                                                           U* __restrict__ out, const std::uint32_t* __restrict__ winners, Fault* fault) {
  const std::uint32_t item = blockIdx.x * kMoveThreads + threadIdx.x;
  if (item >= v.move.items) return;
  std::uint32_t part_row = item;
  const std::uint32_t i = take_index(part_row, v.move.vectors);
  const std::int64_t row = v.move.first + part_row, block = block_of(v, indices, row, i == 0, fault);
  if (block < 0 || (winners && winners[block] != row + 1)) return;
  out[block * v.move.vectors.by + i] = updates[v.move.first * v.move.vectors.by + item];
}

}  // namespace

void launch_scatter_nd(const TupleView& view, const void* updates, const void* indices, void* out, std::uint32_t* winners, Fault* fault,
                       cudaStream_t stream) {
  if (view.move.rows == 0) return;
  with_index_type(view.index_dtype, [&](auto index) {
    using I = typename decltype(index)::type;
    const auto* at = static_cast<const I*>(indices);
    if (winners) start_kernel(stream, find_winners<I>, grid_for(view.move.rows, kMoveThreads), kMoveThreads, 0, view, at, winners, fault);
    for_each_part(view, [&](const TupleView& part) {
      with_moved_bytes(part.move.bytes, [&](auto moved) {
        using U = typename decltype(moved)::type;
        start_kernel(stream, scatter_nd<U, I>, grid_for(part.move.items, kMoveThreads), kMoveThreads, 0, part,
                     static_cast<const U*>(updates), at, static_cast<U*>(out), winners, fault);
      });
    });
  });
}

}  // namespace tandem::cuda
