// The norm of reduced rows in registers, for the kernels that reduce them. blockDim.x threads, a multiple of 32, have one row; blockDim.y
// of them are under way at once. A thread has words threadIdx.x, threadIdx.x + blockDim.x, … of its row, up to kPer.
#pragma once

#include <algorithm>

#include "comm/peer/words.cuh"

namespace tandem::peer {

inline constexpr int kWarps = kThreads / 32;
inline constexpr int kMostPer = 2;  // more would not stay in registers

// How the words of a row lie over threads, and how many rows a block has room for.
struct RowLayout {
  int words, threads, per, height;
};
inline RowLayout row_layout(const ReduceAndNorm& work) {
  RowLayout rows{};
  rows.words = static_cast<int>(work.length * (bits(work.dtype) / 8) / static_cast<int>(kWord));
  rows.threads = std::min(kThreads, (rows.words + 31) / 32 * 32);
  rows.per = (rows.words + rows.threads - 1) / rows.threads;
  rows.height = kThreads / rows.threads;
  return rows;
}

__device__ __forceinline__ int column_of(int j) { return static_cast<int>(j * blockDim.x + threadIdx.x); }

// Word i of operands and results, whose addresses may be aligned to an element only.
template <typename T>
__device__ __forceinline__ uint4 row_word(const ReduceAndNorm& n, const void* base, std::int64_t i) {
  if (n.aligned) return static_cast<const uint4*>(base)[i];
  T elements[Values<T>::kCount];
#pragma unroll
  for (int k = 0; k < Values<T>::kCount; ++k) elements[k] = static_cast<const T*>(base)[i * Values<T>::kCount + k];
  uint4 word;
  memcpy(&word, elements, kWord);
  return word;
}
template <typename T>
__device__ __forceinline__ void put_row_word(const ReduceAndNorm& n, void* base, std::int64_t i, const uint4& word) {
  if (n.aligned) {
    static_cast<uint4*>(base)[i] = word;
    return;
  }
  T elements[Values<T>::kCount];
  memcpy(elements, &word, kWord);
#pragma unroll
  for (int k = 0; k < Values<T>::kCount; ++k) static_cast<T*>(base)[i * Values<T>::kCount + k] = elements[k];
}

// The thread's words of a row of `words` words, or nothing for a row that does not exist.
template <typename T, int kPer>
__device__ __forceinline__ void load_row(const ReduceAndNorm& n, const void* base, std::int64_t row, int words, uint4 (&to)[kPer]) {
#pragma unroll
  for (int j = 0; j < kPer; ++j)
    if (row < n.rows && column_of(j) < words) to[j] = row_word<T>(n, base, row * words + column_of(j));
}

// What the rows of a block share. Each norm() ends in the same number of barriers for all threads.
struct RowSums {
  float at[2][2][kWarps];
};

// The sum over the threads of the row, to all of them. `shared` is free again after the next call with another one.
__device__ __forceinline__ float row_sum(float x, float* shared) {
#pragma unroll
  for (int o = 16; o > 0; o >>= 1) x += __shfl_xor_sync(0xffffffffu, x, o);
  const int warps = static_cast<int>(blockDim.x) / 32, first = static_cast<int>(threadIdx.y) * warps,
            lane = static_cast<int>(threadIdx.x) % 32;
  if (lane == 0) shared[first + static_cast<int>(threadIdx.x) / 32] = x;
  __syncthreads();
  x = lane < warps ? shared[first + lane] : 0.0f;
#pragma unroll
  for (int o = 16; o > 0; o >>= 1) x += __shfl_xor_sync(0xffffffffu, x, o);
  return x;
}

// From the reduced words of a row to its two results. By all threads of the block, for rows that do not exist too; `turn` counts its calls.
template <typename T, int kPer>
__device__ __forceinline__ void finish_row(const ReduceAndNorm& n, std::int64_t row, int words, const uint4 (&reduced)[kPer],
                                           const uint4 (&residual)[kPer], RowSums& sums, int turn) {
  constexpr int kCount = Values<T>::kCount;
  const auto has = [&](int j) { return row < n.rows && column_of(j) < words; };
  Values<T> x[kPer];
  uint4 scale[kPer];
  float mean = 0, squares = 0;
#pragma unroll
  for (int j = 0; j < kPer; ++j) {
    if (!has(j)) continue;
    scale[j] = row_word<T>(n, n.scale, column_of(j));
    x[j] = Values<T>::of(reduced[j]);
    const Values<T> more = Values<T>::of(residual[j]);
    Values<T> offset{};
    if (n.offset) offset = Values<T>::of(row_word<T>(n, n.offset, column_of(j)));
#pragma unroll
    for (int k = 0; k < kCount; ++k) x[j].at[k] = x[j].at[k] + offset.at[k] + more.at[k];
    const uint4 stored = x[j].word();
    put_row_word<T>(n, n.sum, row * words + column_of(j), stored);
    x[j] = Values<T>::of(stored);
#pragma unroll
    for (int k = 0; k < kCount; ++k) mean += x[j].at[k];
  }
  const float length = static_cast<float>(words * kCount);
  mean = n.centers ? row_sum(mean, sums.at[turn & 1][0]) / length : 0.0f;
#pragma unroll
  for (int j = 0; j < kPer; ++j)
    if (has(j))
#pragma unroll
      for (int k = 0; k < kCount; ++k) squares += (x[j].at[k] - mean) * (x[j].at[k] - mean);
  const float factor = 1.0f / sqrtf(row_sum(squares, sums.at[turn & 1][1]) / length + n.epsilon);
#pragma unroll
  for (int j = 0; j < kPer; ++j) {
    if (!has(j)) continue;
    const Values<T> by = Values<T>::of(scale[j]);
    Values<T> bias{};
    if (n.bias) bias = Values<T>::of(row_word<T>(n, n.bias, column_of(j)));
#pragma unroll
    for (int k = 0; k < kCount; ++k) x[j].at[k] = (x[j].at[k] - mean) * factor * by.at[k] + bias.at[k];
    put_row_word<T>(n, n.y, row * words + column_of(j), x[j].word());
  }
}

}  // namespace tandem::peer
