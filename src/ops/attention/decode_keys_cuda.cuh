// Attention of up to 16 lines over 16 keys at a time, for f16 and bf16, by one warp on tensor cores. Keys and values come through a queue
// of the warp's in shared memory, so that warps do not wait for each other. For *_cuda.cu files.
#pragma once

#include "ops/attention/lines_cuda.cuh"
#include "ops/tensor_cores_cuda.cuh"

namespace tandem::cuda {

constexpr int kDecodeLines = 16, kDecodeKeys = 16;  // of a warp at a time
constexpr int kDecodeStages = 3;                    // that many times 16 keys are on their way to a warp

template <typename T_, int kSize_, bool kMasked_>
struct Form {
  using T = T_;
  static constexpr int kSize = kSize_;       // what rows of q, k and v are padded to: 64 or 128
  static constexpr bool kMasked = kMasked_;  // whether scores pass a mask, a cap or a factor that is not positive
  static constexpr int kWords = kSize / 8;   // of 16 bytes, of a row
};

// What a lane knows of lines lane / 4 and lane / 4 + 8.
template <typename F>
struct Rows {
  int ends[2];
  std::int64_t mask_rows[2];
  float tops[2], totals[2];     // tops before the factor; totals of this lane's columns only
  unsigned q[2][F::kWords];     // elements 2·(lane % 4) and the next of each word
  float sums[F::kWords][2][2];  // [word][line][element], the same elements of the values' sums
};

// Where a warp's keys and values come from, and its stages. Word w of key j lies at w ^ j % 8, so that neither the rows that copies write
// nor the eight keys that tensor cores read at once meet in a bank.
template <typename F>
struct KeyQueue {
  static constexpr int kArrayBytes = kDecodeKeys * F::kWords * 16, kStageBytes = 2 * kArrayBytes;  // keys, then values
  const typename F::T *k, *v;
  unsigned room;  // shared, aligned to 256: kDecodeStages · kStageBytes

  // Begins copies of rows first … first + 15 to an array, zeros from row `end` and element `size` on. Rows are asked for whole, since
  // memory gives parts of them at half the speed.
  static __device__ __forceinline__ void ask(unsigned to, const typename F::T* from, std::int64_t step, int first, int end, int size) {
    constexpr int kAtOnce = 32 / F::kWords;
    const int lane = threadIdx.x % 32, word = lane % F::kWords, row = lane / F::kWords;
    const unsigned place = row * F::kWords * 16, column = 16 * (word ^ row);
    const typename F::T* at = from + (first + row) * step + 8 * word;
    if (first + kDecodeKeys <= end && size == F::kSize) {
#pragma unroll
      for (int i = 0; i < kDecodeKeys; i += kAtOnce, at += kAtOnce * step)
        copy_beside(to + i * F::kWords * 16 + place + (column ^ 16 * (i % 8)), at, 16);
    } else {
#pragma unroll 1
      for (int i = 0; i < kDecodeKeys; i += kAtOnce, at += kAtOnce * step) {
        const bool real = first + row + i < end && 8 * word < size;
        copy_beside(to + i * F::kWords * 16 + place + (column ^ 16 * (i % 8)), real ? at : from, real ? 16 : 0);
      }
    }
  }
  __device__ __forceinline__ void ask(const AttentionRun& p, int stage, int first, int end) const {
    const unsigned to = room + stage * kStageBytes;
    ask(to, k, p.k_steps.row, first, end, p.size);
    ask(to + kArrayBytes, v, p.v_steps.row, first, end, p.value_size);
  }
  // Brings the same rows to the L2 cache.
  __device__ __forceinline__ void announce(const AttentionRun& p, int first, int end) const {
    const int lane = threadIdx.x % 32, row = first + lane % kDecodeKeys;
    if (row >= end) return;
    if (lane < kDecodeKeys) bring_near(k + row * p.k_steps.row, p.size * static_cast<int>(sizeof(typename F::T)));
    else bring_near(v + row * p.v_steps.row, p.value_size * static_cast<int>(sizeof(typename F::T)));
  }
};

// scores[n] of keys 8·n + 2·(lane % 4) and the next, for line lane / 4: [0] and [1], for the line 8 later: [2] and [3].
template <typename F>
__device__ __forceinline__ void multiply_keys(unsigned keys, const Rows<F>& rows, float (&scores)[2][4]) {
  const int lane = threadIdx.x % 32, row = lane % 8 + lane / 16 * 8;
  const unsigned at = keys + row * F::kWords * 16 + 16 * (lane / 8 % 2 ^ lane % 8);
  float others[2][4] = {};  // every second step, for shorter chains
#pragma unroll
  for (int w = 0; w < F::kWords; w += 2) {
    unsigned b[4];
    load_matrices(b, at ^ 16 * w);
    const unsigned a[4] = {rows.q[0][w], rows.q[1][w], rows.q[0][w + 1], rows.q[1][w + 1]};
    auto& to = w / 2 % 2 == 0 ? scores : others;
    multiply_fragments<typename F::T>(to[0], a, b[0], b[1]);
    multiply_fragments<typename F::T>(to[1], a, b[2], b[3]);
  }
#pragma unroll
  for (int i = 0; i < 8; ++i) scores[i / 4][i % 4] += others[i / 4][i % 4];
}

// Adds weights[n] times values, where both lie as scores do.
template <typename F>
__device__ __forceinline__ void add_values(unsigned values, const float (&weights)[2][4], Rows<F>& rows) {
  using T = typename F::T;
  const int lane = threadIdx.x % 32;
  const unsigned at = values + lane % 16 * F::kWords * 16 + 16 * (lane / 16 ^ lane % 8);
  const unsigned a[4] = {pack<T>(weights[0][0], weights[0][1]), pack<T>(weights[0][2], weights[0][3]),
                         pack<T>(weights[1][0], weights[1][1]), pack<T>(weights[1][2], weights[1][3])};
#pragma unroll
  for (int w = 0; w < F::kWords; w += 2) {
    unsigned b[4];
    load_transposed(b, at ^ 16 * w);
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      auto& sums = rows.sums[w + i];
      float c[4] = {sums[0][0], sums[0][1], sums[1][0], sums[1][1]};
      multiply_fragments<T>(c, a, b[2 * i], b[2 * i + 1]);
      sums[0][0] = c[0], sums[0][1] = c[1], sums[1][0] = c[2], sums[1][1] = c[3];
    }
  }
}

// Keys first … first + 15 of a stage, of which those from `end` on count for nothing.
template <typename F>
__device__ __forceinline__ void attend_keys(const AttentionRun& p, float factor, unsigned stage, int first, int end, Rows<F>& rows) {
  const int low = threadIdx.x % 4;
  float scores[2][4] = {};
  multiply_keys<F>(stage, rows, scores);
  bool grew = false;
  float kept[2];
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    float top = rows.tops[r];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      float& score = scores[i / 2][2 * r + i % 2];
      const int column = first + 8 * (i / 2) + 2 * low + i % 2;
      if (column >= min(end, rows.ends[r])) score = kLowest;
      else if (F::kMasked) score = score_of(p, score, rows.mask_rows[r], column);
      top = fmaxf(top, score);  // NaN leaves the maximum alone
    }
    top = fmaxf(top, __shfl_xor_sync(0xffffffff, top, 1));
    top = fmaxf(top, __shfl_xor_sync(0xffffffff, top, 2));
    const bool nothing = top == kLowest;
    const float shift = nothing ? 0.0f : F::kMasked ? top : top * factor;
    // What a mask made of scores may lie near the end of the floats: no product there before the difference.
    const auto weight = [&](float score) { return quick_exp2(F::kMasked ? (score - shift) * factor : score * factor - shift); };
    kept[r] = nothing ? 1.0f : weight(rows.tops[r]);
    grew = grew || kept[r] != 1.0f;
    rows.tops[r] = top;
    rows.totals[r] *= kept[r];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      float& score = scores[i / 2][2 * r + i % 2];
      score = weight(score);
      rows.totals[r] += score;
    }
  }
  if (__any_sync(0xffffffff, grew)) {
#pragma unroll
    for (int w = 0; w < F::kWords; ++w)
#pragma unroll
      for (int i = 0; i < 4; ++i) rows.sums[w][i / 2][i % 2] *= kept[i / 2];
  }
  add_values<F>(stage + KeyQueue<F>::kArrayBytes, scores, rows);
}

}  // namespace tandem::cuda
