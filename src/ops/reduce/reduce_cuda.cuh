// The kernels of reductions, for any operation that has
//   Element, Result, Acc (trivial, at most 16 bytes)
//   Acc start();  void update(Acc&, Element, std::uint32_t index);  void join(Acc&, Acc);  Result finish(Acc);
// join() does not depend on the order of its operands; index: of the element among those that meet in one result, where one dimension is
// lost.
#pragma once

#include "device/cuda/dependent.cuh"
#include "device/cuda/registers.cuh"
#include "ops/move_cuda.cuh"
#include "ops/reduce/reduce_cuda.h"

namespace tandem::cuda {

// That a thread has under way. What lies past the end is read as the last element again, and not counted, so that no load waits for a
// branch.
inline constexpr int kReduceLoads = 4;

__device__ __forceinline__ std::int64_t walk(const ReduceAxes& axes, std::uint32_t n) {
  if (axes.rank == 1) return n * axes.strides[0];
  std::int64_t at = 0;
#pragma unroll 1
  for (int d = 0; d < axes.rank; ++d) at += take_index(n, axes.extents[d]) * axes.strides[d];
  return at;
}

template <typename T>
__device__ __forceinline__ T from_lane(T value, int distance) {
  static_assert(sizeof(T) % 4 == 0);
  std::uint32_t words[sizeof(T) / 4];
  memcpy(words, &value, sizeof(T));
#pragma unroll
  for (std::uint32_t& word : words) word = __shfl_xor_sync(0xffffffffu, word, distance);
  memcpy(&value, words, sizeof(T));
  return value;
}

// Of the threads of a team, in its first one; every thread of the block takes part.
template <typename Op>
__device__ __forceinline__ typename Op::Acc join_team(const Op& op, typename Op::Acc acc, int team) {
  for (int distance = min(team, 32) / 2; distance > 0; distance /= 2) op.join(acc, from_lane(acc, distance));
  if (team <= 32) return acc;
  __shared__ typename Op::Acc warps[kReduceThreads / 32];
  if (threadIdx.x % 32 == 0) warps[threadIdx.x / 32] = acc;
  __syncthreads();
  if (threadIdx.x % team == 0)
    for (int w = 1; w < team / 32; ++w) op.join(acc, warps[threadIdx.x / 32 + w]);
  return acc;
}

template <typename Op, int kVector>
__global__ void __launch_bounds__(kReduceThreads, kRoomFrom100)
    reduce_rows(const __grid_constant__ Op op, const __grid_constant__ ReducePlan p, const typename Op::Element* __restrict__ x,
                typename Op::Result* __restrict__ y, typename Op::Acc* __restrict__ parts) {
  using Acc = typename Op::Acc;
  using Loaded = Vector<typename Op::Element, kVector>;
  const std::uint32_t lane = threadIdx.x % p.team, unit = blockIdx.x * (kReduceThreads / p.team) + threadIdx.x / p.team;
  std::uint32_t output = unit;
  const bool valid = unit < p.groups * p.splits.by;
  const std::uint32_t begin = valid ? take_index(output, p.splits) * p.chunk : 0, end = valid ? min(begin + p.chunk, p.items) : 0;
  const typename Op::Element* row = x + (valid ? walk(p.kept, output) : 0);
  Acc accs[kReduceLoads];
#pragma unroll
  for (Acc& acc : accs) acc = op.start();
  for (std::uint32_t j = begin + lane; j < end; j += p.team * kReduceLoads) {
    Loaded loaded[kReduceLoads];
#pragma unroll
    for (int k = 0; k < kReduceLoads; ++k) loaded[k] = *reinterpret_cast<const Loaded*>(row + walk(p.lost, min(j + k * p.team, end - 1)));
#pragma unroll
    for (int k = 0; k < kReduceLoads; ++k)
      if (j + k * p.team < end)
#pragma unroll
        for (int i = 0; i < kVector; ++i) op.update(accs[k], loaded[k].at[i], (j + k * p.team) * kVector + i);
  }
#pragma unroll
  for (int k = 1; k < kReduceLoads; ++k) op.join(accs[0], accs[k]);
  const Acc acc = join_team(op, accs[0], p.team);
  if (lane != 0 || !valid) return;
  if (p.splits.by == 1) y[output] = op.finish(acc);
  else parts[unit] = acc;
}

template <typename Op, int kVector>
__global__ void __launch_bounds__(kReduceThreads, kRoomFrom100)
    reduce_columns(const __grid_constant__ Op op, const __grid_constant__ ReducePlan p, const typename Op::Element* __restrict__ x,
                   typename Op::Result* __restrict__ y, typename Op::Acc* __restrict__ parts) {
  using Acc = typename Op::Acc;
  using Loaded = Vector<typename Op::Element, kVector>;
  const std::uint32_t lane = threadIdx.x % kColumnLanes, line = threadIdx.x / kColumnLanes, group = blockIdx.x * kColumnLanes + lane;
  const std::uint32_t begin = blockIdx.y * p.chunk, end = group < p.groups ? min(begin + p.chunk, p.items) : 0;
  const typename Op::Element* column = x + (group < p.groups ? walk(p.kept, group) : 0);
  Acc accs[kVector];
#pragma unroll
  for (Acc& acc : accs) acc = op.start();
  for (std::uint32_t j = begin + line; j < end; j += kColumnLines * kReduceLoads) {
    Loaded loaded[kReduceLoads];
#pragma unroll
    for (int k = 0; k < kReduceLoads; ++k)
      loaded[k] = *reinterpret_cast<const Loaded*>(column + walk(p.lost, min(j + k * kColumnLines, end - 1)));
#pragma unroll
    for (int k = 0; k < kReduceLoads; ++k)
      if (j + k * kColumnLines < end)
#pragma unroll
        for (int i = 0; i < kVector; ++i) op.update(accs[i], loaded[k].at[i], j + k * kColumnLines);
  }
  __shared__ Acc lines[kColumnLines][kVector][kColumnLanes];
#pragma unroll
  for (int i = 0; i < kVector; ++i) lines[line][i][lane] = accs[i];
  __syncthreads();
  for (int i = line; i < kVector; i += kColumnLines) {
    Acc acc = lines[0][i][lane];
#pragma unroll
    for (int l = 1; l < kColumnLines; ++l) op.join(acc, lines[l][i][lane]);
    if (group >= p.groups) continue;
    const std::int64_t output = std::int64_t{group} * kVector + i;
    if (p.splits.by == 1) y[output] = op.finish(acc);
    else parts[output * p.splits.by + blockIdx.y] = acc;
  }
}

// A warp for each result.
template <typename Op>
__global__ void __launch_bounds__(kReduceThreads)
    join_parts(Op op, std::uint32_t outputs, std::uint32_t splits, const typename Op::Acc* __restrict__ parts,
               typename Op::Result* __restrict__ y) {
  const std::uint32_t output = blockIdx.x * (kReduceThreads / 32) + threadIdx.x / 32, lane = threadIdx.x % 32;
  typename Op::Acc acc = op.start();
  if (output < outputs)
    for (std::uint32_t s = lane; s < splits; s += 32) op.join(acc, parts[std::int64_t{output} * splits + s]);
  acc = join_team(op, acc, 32);
  if (output < outputs && lane == 0) y[output] = op.finish(acc);
}

template <typename Op, int kVector>
void launch_planned(const Op& op, const ReducePlan& p, const void* from, void* to, void* workspace, cudaStream_t stream) {
  const auto* x = static_cast<const typename Op::Element*>(from);
  auto* y = static_cast<typename Op::Result*>(to);
  auto* parts = static_cast<typename Op::Acc*>(workspace);
  if (p.outputs == 0) return;
  if (p.rows)
    start_kernel(stream, reduce_rows<Op, kVector>, grid_for(std::int64_t{p.groups} * p.splits.by, kReduceThreads / p.team), kReduceThreads,
                 0, op, p, x, y, parts);
  else
    start_kernel(stream, reduce_columns<Op, kVector>, dim3(grid_for(p.groups, kColumnLanes), p.splits.by), kReduceThreads, 0, op, p, x, y,
                 parts);
  if (p.splits.by > 1)
    start_kernel(stream, join_parts<Op>, grid_for(p.outputs, kReduceThreads / 32), kReduceThreads, 0, op, p.outputs, p.splits.by, parts, y);
}

}  // namespace tandem::cuda
