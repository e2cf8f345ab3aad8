#include "device/cuda/dependent.cuh"
#include "ops/gather/index_cuda.cuh"

namespace tandem::cuda {
namespace {

template <typename U, typename I, int kItems>
__global__ void __launch_bounds__(kMoveThreads) gather_elements(ElementsView v, const U* data, const I* indices, U* out, Fault* fault) {
  begin_dependent();
  const std::uint32_t begin = blockIdx.x * (kMoveThreads * kItems) + threadIdx.x;
  std::int64_t from[kItems];
  U values[kItems];
#pragma unroll
  for (int j = 0; j < kItems; ++j) {
    std::uint32_t item = begin + j * kMoveThreads;
    from[j] = -1;
    if (item >= v.items) continue;
    const std::int64_t index = indices[item], front = front_index(index, v.extent);
    if (front < 0) {
      report_index(fault, index, v.extent);
      continue;
    }
    from[j] = front * v.step;
#pragma unroll
    for (int d = 0; d < kWalkRank; ++d) {
      if (d >= v.rank) break;
      from[j] += take_index(item, v.extents[d]) * v.strides[d];
    }
  }
#pragma unroll
  for (int j = 0; j < kItems; ++j) values[j] = from[j] >= 0 ? data[from[j]] : U{};
#pragma unroll
  for (int j = 0; j < kItems; ++j)
    if (begin + j * kMoveThreads < v.items) out[begin + j * kMoveThreads] = values[j];
}

}  // namespace

void launch_gather_elements(const ElementsView& view, const void* data, const void* indices, void* out, Fault* fault, const Start& start) {
  if (view.items == 0) return;
  with_element_bytes(static_cast<std::size_t>(view.bytes), [&](auto moved) {
    with_index_type(view.index_dtype, [&](auto index) {
      with_items_per_thread(view.items, [&](auto items) {
        using U = typename decltype(moved)::type;
        using I = typename decltype(index)::type;
        start_kernel(start, gather_elements<U, I, items.value>, grid_for(view.items, kMoveThreads * items.value), kMoveThreads, 0, view,
                     static_cast<const U*>(data), static_cast<const I*>(indices), static_cast<U*>(out), fault);
      });
    });
  });
}

}  // namespace tandem::cuda
