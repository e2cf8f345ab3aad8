#include "device/cuda/dependent.cuh"
#include "ops/layout/copy_cuda.h"
#include "ops/move_cuda.cuh"

namespace tandem::cuda {
namespace {

constexpr int kTileThreads = 256;

struct Offsets {
  std::int64_t from, to;
};

__device__ __forceinline__ Offsets offsets_of(const CopyPart& p, std::uint32_t item) {
  Offsets at{p.from_offset, p.to_offset};
#pragma unroll
  for (int d = 0; d < kCopyRank; ++d) {
    if (d >= p.rank) break;
    const std::uint32_t i = d + 1 < p.rank ? take_index(item, p.extents[d]) : item;
    at.from += i * p.from[d];
    at.to += i * p.to[d];
  }
  return at;
}

// All loads of a thread are under way before the first store.
template <typename U, int kItems>
__global__ void __launch_bounds__(kMoveThreads) copy_elements(CopyPart p, const U* from, U* to) {
  begin_dependent();
  const std::uint32_t begin = blockIdx.x * (kMoveThreads * kItems) + threadIdx.x;
  U values[kItems];
  std::int64_t at[kItems];
#pragma unroll
  for (int j = 0; j < kItems; ++j) {
    const std::uint32_t item = begin + j * kMoveThreads;
    if (item >= p.items) break;
    const Offsets offsets = offsets_of(p, item);
    at[j] = offsets.to;
    values[j] = from[offsets.from];
  }
#pragma unroll
  for (int j = 0; j < kItems; ++j) {
    if (begin + j * kMoveThreads >= p.items) break;
    to[at[j]] = values[j];
  }
}

template <typename U>
__global__ void __launch_bounds__(kMoveThreads) copy_gathered(CopyPart p, const U* from, Vector<U, 16 / sizeof(U)>* to) {
  begin_dependent();
  const std::uint32_t item = blockIdx.x * kMoveThreads + threadIdx.x;
  if (item >= p.items) return;
  const Offsets at = offsets_of(p, item);
  Vector<U, 16 / sizeof(U)> values;
#pragma unroll
  for (int i = 0; i < static_cast<int>(16 / sizeof(U)); ++i) values.at[i] = from[at.from + i * p.step];
  store_vector(to + at.to, values);
}

// tile[c][r]: a line for each column, as the source has it. The padding of one bank keeps a column's elements in different banks.
template <typename U, int kLoad, int kStore>
__global__ void __launch_bounds__(kTileThreads) copy_tiled(CopyPart p, const U* from, U* to) {
  begin_dependent();
  constexpr int kSide = tile_side(sizeof(U)), kPitch = kSide + (sizeof(U) < 4 ? 4 / sizeof(U) : 1);
  __shared__ U tile[kSide][kPitch];
  std::uint32_t item = blockIdx.x;
  const Offsets at = offsets_of(p, item);
  const int row_begin = static_cast<int>(take_index(item, p.extents[0])) * kSide,
            column_begin = static_cast<int>(take_index(item, p.extents[1])) * kSide;
  const std::int64_t rows = min(p.rows - row_begin, std::int64_t{kSide}), columns = min(p.columns - column_begin, std::int64_t{kSide});

  constexpr int kLoaders = kSide / kLoad, kLoadStep = kTileThreads / kLoaders, kLoads = kSide / kLoadStep;
  const int row = threadIdx.x % kLoaders * kLoad, load_line = threadIdx.x / kLoaders;
  Vector<U, kLoad> loaded[kLoads] = {};
#pragma unroll
  for (int j = 0; j < kLoads; ++j) {
    const int column = load_line + j * kLoadStep;
    if (row < rows && column < columns)
      loaded[j] = *reinterpret_cast<const Vector<U, kLoad>*>(from + at.from + column * p.column_from + row);
  }
#pragma unroll
  for (int j = 0; j < kLoads; ++j)
#pragma unroll
    for (int i = 0; i < kLoad; ++i) tile[load_line + j * kLoadStep][row + i] = loaded[j].at[i];
  __syncthreads();

  constexpr int kStorers = kSide / kStore, kStoreStep = kTileThreads / kStorers, kStores = kSide / kStoreStep;
  const int column = threadIdx.x % kStorers * kStore, store_line = threadIdx.x / kStorers;
  Vector<U, kStore> stored[kStores];
#pragma unroll
  for (int j = 0; j < kStores; ++j)
#pragma unroll
    for (int i = 0; i < kStore; ++i) stored[j].at[i] = tile[column + i][store_line + j * kStoreStep];
#pragma unroll
  for (int j = 0; j < kStores; ++j) {
    const int line = store_line + j * kStoreStep;
    if (line < rows && column < columns) store_vector(to + at.to + line * p.row_to + column, stored[j]);
  }
}

template <typename U>
void launch_tiled(const CopyPart& p, const U* from, U* to, const Start& start) {
  constexpr int kVector = tile_vector(sizeof(U));
  if (p.vector_loads && p.vector_stores) start_kernel(start, copy_tiled<U, kVector, kVector>, p.items, kTileThreads, 0, p, from, to);
  else if (p.vector_loads) start_kernel(start, copy_tiled<U, kVector, 1>, p.items, kTileThreads, 0, p, from, to);
  else if (p.vector_stores) start_kernel(start, copy_tiled<U, 1, kVector>, p.items, kTileThreads, 0, p, from, to);
  else start_kernel(start, copy_tiled<U, 1, 1>, p.items, kTileThreads, 0, p, from, to);
}

}  // namespace

void launch_copy(const CopyPart& part, const void* from, void* to, const Start& start) {
  if (part.kind == CopyPart::Kind::elements)
    return with_moved_bytes(part.bytes, [&](auto tag) {
      using U = typename decltype(tag)::type;
      with_items_per_thread(part.items, [&](auto items) {
        start_kernel(start, copy_elements<U, items.value>, grid_for(part.items, kMoveThreads * items.value), kMoveThreads, 0, part,
                     static_cast<const U*>(from), static_cast<U*>(to));
      });
    });
  with_element_bytes(static_cast<std::size_t>(part.bytes), [&](auto tag) {
    using U = typename decltype(tag)::type;
    if (part.kind == CopyPart::Kind::tiled) return launch_tiled(part, static_cast<const U*>(from), static_cast<U*>(to), start);
    start_kernel(start, copy_gathered<U>, grid_for(part.items, kMoveThreads), kMoveThreads, 0, part, static_cast<const U*>(from),
                 static_cast<Vector<U, 16 / sizeof(U)>*>(to));
  });
}

}  // namespace tandem::cuda
