// All-reduce, the addition of a residual and the norm of the sum, in one kernel: a block has whole rows, so that the norm follows in registers.
#include "comm/peer/words.cuh"

#include <algorithm>

#include "tandem/error.h"

namespace tandem::peer {
namespace {

constexpr int kWarps = kThreads / 32;
constexpr int kMostPer = 2;  // words of a row that a thread has; more would not stay in registers

// The sum over the block's threads, to all of them. `shared` is free again after the next two calls with another one.
__device__ __forceinline__ float block_sum(float x, float* shared) {
#pragma unroll
  for (int o = 16; o > 0; o >>= 1) x += __shfl_xor_sync(0xffffffffu, x, o);
  if (threadIdx.x % 32 == 0) shared[threadIdx.x / 32] = x;
  __syncthreads();
  const int warps = static_cast<int>(blockDim.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;
  x = lane < warps ? shared[lane] : 0.0f;
#pragma unroll
  for (int o = 16; o > 0; o >>= 1) x += __shfl_xor_sync(0xffffffffu, x, o);
  return x;
}

__device__ __forceinline__ const uint4& word_of(const void* base, std::int64_t i) { return static_cast<const uint4*>(base)[i]; }

// A thread has words threadIdx.x, threadIdx.x + blockDim.x, … of each row, up to kPer of them.
template <typename T, int kMost, int kPer>
__global__ void __launch_bounds__(kThreads, 1) reduce_and_norm(const __grid_constant__ View view, const __grid_constant__ ReduceAndNorm n, int words, int rows_per_block) {
  __shared__ float shared[2][2][kWarps];
  constexpr int kCount = Values<T>::kCount;
  const int lane = static_cast<int>(blockIdx.x);
  const std::int64_t first = std::int64_t{lane} * rows_per_block;
  const int rows = static_cast<int>(min(static_cast<std::int64_t>(rows_per_block), n.rows - first));
  const std::size_t apart = kWordLane / kWord / view.size * kWord;
  const auto column = [](int j) { return static_cast<int>(j * blockDim.x + threadIdx.x); };
  wait_for_previous();
  uint4 own[kPer];
#pragma unroll
  for (int j = 0; j < kPer; ++j)
    if (column(j) < words) own[j] = never_empty(word_of(n.in, first * words + column(j)));
  const Turn turn = begin_turn(view);
  if (turn.ended) return;
  const unsigned slot = turn.lane.calls & 1;
  for (int row = 0; row < rows; ++row)
#pragma unroll
    for (int j = 0; j < kPer; ++j) {
      if (column(j) >= words) continue;
      const uint4 word = row == 0 ? own[j] : never_empty(word_of(n.in, (first + row) * words + column(j)));
      for_peers<kMost>(
          view, [&](int) { return word; },
          [&](int p, const uint4& w) { store_word(word_lane(view, p, lane, slot) + view.rank * apart + static_cast<std::size_t>(row * words + column(j)) * kWord, w); });
    }
  let_next_begin();
  Wait wait;
  char* const arriving = word_lane(view, view.rank, lane, slot);
  for (int row = 0; row < rows; ++row) {
    const std::int64_t begin = (first + row) * words;
    constexpr bool kAhead = kPer == 1;  // else there are words enough on their way
    uint4 residual[kPer], scale[kPer];
#pragma unroll
    for (int j = 0; j < kPer; ++j) {
      if (column(j) >= words) continue;
      if (row > 0) own[j] = never_empty(word_of(n.in, begin + column(j)));
      if (kAhead) residual[j] = word_of(n.residual, begin + column(j));
      if (kAhead) scale[j] = word_of(n.scale, column(j));
    }
    Values<T> x[kPer];
    float mean = 0, squares = 0;
#pragma unroll
    for (int j = 0; j < kPer; ++j) {
      if (column(j) >= words) continue;
      const std::size_t at = static_cast<std::size_t>(row * words + column(j)) * kWord;
      x[j] = Values<T>::of(take_and_reduce<T, kMost, true>(view, arriving + at, apart, own[j], Fold::sum, wait));
      const Values<T> more = Values<T>::of(kAhead ? residual[j] : word_of(n.residual, begin + column(j)));
      Values<T> offset{};
      if (n.offset) offset = Values<T>::of(word_of(n.offset, column(j)));
#pragma unroll
      for (int k = 0; k < kCount; ++k) x[j].at[k] = x[j].at[k] + offset.at[k] + more.at[k];
      const uint4 stored = x[j].word();
      static_cast<uint4*>(n.sum)[begin + column(j)] = stored;
      x[j] = Values<T>::of(stored);
#pragma unroll
      for (int k = 0; k < kCount; ++k) mean += x[j].at[k];
    }
    const float length = static_cast<float>(words * kCount);
    mean = n.centers ? block_sum(mean, shared[row & 1][0]) / length : 0.0f;
#pragma unroll
    for (int j = 0; j < kPer; ++j)
      if (column(j) < words)
#pragma unroll
        for (int k = 0; k < kCount; ++k) squares += (x[j].at[k] - mean) * (x[j].at[k] - mean);
    const float factor = 1.0f / sqrtf(block_sum(squares, shared[row & 1][1]) / length + n.epsilon);
#pragma unroll
    for (int j = 0; j < kPer; ++j) {
      if (column(j) >= words) continue;
      const Values<T> by = Values<T>::of(kAhead ? scale[j] : word_of(n.scale, column(j)));
      Values<T> bias{};
      if (n.bias) bias = Values<T>::of(word_of(n.bias, column(j)));
#pragma unroll
      for (int k = 0; k < kCount; ++k) x[j].at[k] = (x[j].at[k] - mean) * factor * by.at[k] + bias.at[k];
      static_cast<uint4*>(n.y)[begin + column(j)] = x[j].word();
    }
  }
  if (threadIdx.x == 0) view.state->lanes[lane].calls = turn.lane.calls + 1;
}

int words_in_row(const ReduceAndNorm& work) { return static_cast<int>(work.length * (bits(work.dtype) / 8) / static_cast<int>(kWord)); }

std::int64_t rows_per_block(const ReduceAndNorm& work) {
  const std::int64_t most = std::min(work.blocks, kLanes);
  return (work.rows + most - 1) / most;
}

template <typename T, int kMost>
void launch_of(const View& view, const ReduceAndNorm& work, cudaStream_t stream) {
  const int words = words_in_row(work), per_block = static_cast<int>(rows_per_block(work));
  const int threads = std::min(kThreads, (words + 31) / 32 * 32), per = (words + threads - 1) / threads;
  const auto blocks = static_cast<unsigned>((work.rows + per_block - 1) / per_block);
  const Launch launch(blocks, static_cast<unsigned>(threads), stream, work.early);
  if (per == 1) launch.start(reduce_and_norm<T, kMost, 1>, view, work, words, per_block);
  else launch.start(reduce_and_norm<T, kMost, kMostPer>, view, work, words, per_block);
}

template <typename T>
void launch_type(const View& view, const ReduceAndNorm& work, cudaStream_t stream) {
  if (view.size <= 2) launch_of<T, 2>(view, work, stream);
  else if (view.size <= 4) launch_of<T, 4>(view, work, stream);
  else launch_of<T, 8>(view, work, stream);
}

}  // namespace

bool can_reduce_and_norm(const ReduceAndNorm& work, int size) {
  if (work.dtype != DType::f32 && work.dtype != DType::f16 && work.dtype != DType::bf16) return false;
  if (work.rows <= 0 || work.length <= 0 || work.length * (bits(work.dtype) / 8) % static_cast<std::int64_t>(kWord) != 0) return false;
  for (const void* at : {work.in, work.residual, work.offset, work.scale, work.bias, static_cast<const void*>(work.y), static_cast<const void*>(work.sum)})
    if (reinterpret_cast<std::uintptr_t>(at) % kWord != 0) return false;
  if (work.length > std::int64_t{kMostPer} * kThreads * static_cast<std::int64_t>(kWord) / (bits(work.dtype) / 8)) return false;
  return rows_per_block(work) * words_in_row(work) <= static_cast<std::int64_t>(kWordLane / kWord) / size;
}

void launch_reduce_and_norm(const View& view, const ReduceAndNorm& work, cudaStream_t stream) {
  switch (work.dtype) {
    case DType::f32: return launch_type<float>(view, work, stream);
    case DType::f16: return launch_type<__half>(view, work, stream);
    case DType::bf16: return launch_type<__nv_bfloat16>(view, work, stream);
    default: throw Error(ErrorCode::internal, "words are of f32, f16 or bf16");
  }
}

}  // namespace tandem::peer
