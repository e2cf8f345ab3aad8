#include "device/cuda/dependent.cuh"
#include "ops/gather/index_cuda.cuh"

namespace tandem::cuda {
namespace {

// A thread loads all its indices, then all its vectors, then stores: each wait for memory is shared by several.
template <typename U, typename I, int kItems>
__global__ void __launch_bounds__(kMoveThreads) gather(GatherView v, const U* table, const I* indices, U* out, Fault* fault) {
  begin_dependent();
  const std::uint32_t begin = blockIdx.x * (kMoveThreads * kItems) + threadIdx.x;
  std::int64_t from[kItems];
  U values[kItems];
#pragma unroll
  for (int j = 0; j < kItems; ++j) {
    std::uint32_t row = begin + j * kMoveThreads;
    from[j] = -1;
    if (row >= v.move.items) continue;
    const std::uint32_t i = take_index(row, v.move.vectors);
    std::uint32_t o = static_cast<std::uint32_t>(v.move.first + row);
    const std::int64_t index = indices[take_index(o, v.count)], front = front_index(index, v.whole), at = front - v.base;
    if (front < 0 && i == 0) report_index(fault, index, v.whole);
    if (front >= 0 && at >= 0 && at < v.extent) from[j] = (o * v.extent + at) * v.move.vectors.by + i;
  }
#pragma unroll
  for (int j = 0; j < kItems; ++j) values[j] = from[j] >= 0 ? table[from[j]] : U{};
#pragma unroll
  for (int j = 0; j < kItems; ++j) {
    const std::uint32_t n = begin + j * kMoveThreads;
    if (n < v.move.items) out[v.move.first * v.move.vectors.by + n] = values[j];
  }
}

template <typename U, typename I, int kItems>
__global__ void __launch_bounds__(kMoveThreads)
    gather_nd(const __grid_constant__ TupleView v, const U* data, const I* indices, U* out, Fault* fault) {
  begin_dependent();
  const std::uint32_t begin = blockIdx.x * (kMoveThreads * kItems) + threadIdx.x;
  std::int64_t from[kItems];
  U values[kItems];
#pragma unroll
  for (int j = 0; j < kItems; ++j) {
    std::uint32_t row = min(begin + j * kMoveThreads, v.move.items - 1);  // past the end the last one again, without a branch
    const std::uint32_t i = take_index(row, v.move.vectors);
    const std::int64_t block = block_of(v, indices, v.move.first + row, i == 0, fault);
    from[j] = block >= 0 ? block * v.move.vectors.by + i : -1;
  }
#pragma unroll
  for (int j = 0; j < kItems; ++j) values[j] = from[j] >= 0 ? data[from[j]] : U{};
#pragma unroll
  for (int j = 0; j < kItems; ++j) {
    const std::uint32_t n = begin + j * kMoveThreads;
    if (n < v.move.items) out[v.move.first * v.move.vectors.by + n] = values[j];
  }
}

}  // namespace

void launch_gather(const GatherView& view, const void* table, const void* indices, void* out, Fault* fault, const Start& start) {
  for_each_part(view, [&](const GatherView& part) {
    with_moved_bytes(part.move.bytes, [&](auto moved) {
      with_index_type(part.index_dtype, [&](auto index) {
        with_items_per_thread(part.move.items, [&](auto items) {
          using U = typename decltype(moved)::type;
          using I = typename decltype(index)::type;
          start_kernel(start, gather<U, I, items.value>, grid_for(part.move.items, kMoveThreads * items.value), kMoveThreads, 0, part,
                       static_cast<const U*>(table), static_cast<const I*>(indices), static_cast<U*>(out), fault);
        });
      });
    });
  });
}

void launch_gather_nd(const TupleView& view, const void* data, const void* indices, void* out, Fault* fault, const Start& start) {
  for_each_part(view, [&](const TupleView& part) {
    with_moved_bytes(part.move.bytes, [&](auto moved) {
      with_index_type(part.index_dtype, [&](auto index) {
        with_items_per_thread(part.move.items, [&](auto items) {
          using U = typename decltype(moved)::type;
          using I = typename decltype(index)::type;
          start_kernel(start, gather_nd<U, I, items.value>, grid_for(part.move.items, kMoveThreads * items.value), kMoveThreads, 0, part,
                       static_cast<const U*>(data), static_cast<const I*>(indices), static_cast<U*>(out), fault);
        });
      });
    });
  });
}

}  // namespace tandem::cuda
