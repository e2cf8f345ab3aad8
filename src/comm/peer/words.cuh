// Words of floats in device code: 16 bytes of f32, f16 or bf16, read, reduced in f32 and written.
#pragma once

#include "comm/peer/exchange.cuh"
#include "comm/peer/launch.h"
#include "comm/peer/spinning.h"
#include "device/cuda/dependent.cuh"

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "tandem/error.h"

namespace tandem::peer {

using cuda::begin_dependent;
using cuda::let_next_begin;
using cuda::Start;
using cuda::start_kernel;
using cuda::wait_for_previous;

__device__ __forceinline__ float widen(float x) { return x; }
__device__ __forceinline__ float widen(__half x) { return __half2float(x); }
__device__ __forceinline__ float widen(__nv_bfloat16 x) { return __bfloat162float(x); }
__device__ __forceinline__ void narrow(float x, float& to) { to = x; }
__device__ __forceinline__ void narrow(float x, __half& to) { to = __float2half_rn(x); }
__device__ __forceinline__ void narrow(float x, __nv_bfloat16& to) { to = __float2bfloat16_rn(x); }

// One word as floats.
template <typename T>
struct Values {
  static constexpr int kCount = static_cast<int>(kWord / sizeof(T));
  float at[kCount];

  __device__ __forceinline__ static Values of(const uint4& word) {
    Values v;
    T elements[kCount];
    memcpy(elements, &word, kWord);
#pragma unroll
    for (int k = 0; k < kCount; ++k) v.at[k] = widen(elements[k]);
    return v;
  }
  __device__ __forceinline__ uint4 word() const {
    T elements[kCount];
#pragma unroll
    for (int k = 0; k < kCount; ++k) narrow(at[k], elements[k]);
    uint4 word;
    memcpy(&word, elements, kWord);
    return word;
  }
};

// As Reducer (comm/reduce.h) combines: NaN propagates through max and min too.
template <bool kSums, typename T>
__device__ __forceinline__ void combine(Values<T>& sum, const Values<T>& next, Fold fold) {
#pragma unroll
  for (int k = 0; k < Values<T>::kCount; ++k) {
    const float a = sum.at[k], b = next.at[k];
    if (kSums) sum.at[k] = a + b;
    else if (fold == Fold::prod) sum.at[k] = a * b;
    else if (fold == Fold::max) sum.at[k] = (a > b) || (a != a) ? a : b;
    else sum.at[k] = (a < b) || (a != a) ? a : b;
  }
}
template <bool kSums, typename T>
__device__ __forceinline__ uint4 finish(Values<T> sum, Fold fold, int size) {
  if (kSums && fold == Fold::avg) {
#pragma unroll
    for (int k = 0; k < Values<T>::kCount; ++k) sum.at[k] = __fdiv_rn(sum.at[k], static_cast<float>(size));
  }
  return never_empty(sum.word());
}

// Word i of an array; what lies beyond its end is zero.
template <typename T>
__device__ __forceinline__ uint4 read_word(const WordArrays& a, const void* from, std::int64_t i) {
  if (a.whole) return static_cast<const uint4*>(from)[i];
  constexpr int kCount = Values<T>::kCount;
  T elements[kCount];
  memset(elements, 0, kWord);
#pragma unroll
  for (int k = 0; k < kCount; ++k)
    if (i * kCount + k < a.elements) elements[k] = static_cast<const T*>(from)[i * kCount + k];
  uint4 word;
  memcpy(&word, elements, kWord);
  return word;
}
template <typename T>
__device__ __forceinline__ void write_word(const WordArrays& a, void* to, std::int64_t i, const uint4& word) {
  if (a.whole) {
    static_cast<uint4*>(to)[i] = word;
    return;
  }
  constexpr int kCount = Values<T>::kCount;
  T elements[kCount];
  memcpy(elements, &word, kWord);
#pragma unroll
  for (int k = 0; k < kCount; ++k)
    if (i * kCount + k < a.elements) static_cast<T*>(to)[i * kCount + k] = elements[k];
}

// use(p, get(p)) for all peers, beginning with the next rank so that not all of them send to one; up to kLoads are got before the first
// is used.
template <int kMost, int kLoads = 4, typename Get, typename Use>
__device__ __forceinline__ void for_peers(const View& view, const Get& get, const Use& use) {
  constexpr int kAhead = kMost < kLoads ? kMost - 1 : kLoads;
  const auto peer_of = [&](int k) { return view.rank + k < view.size ? view.rank + k : view.rank + k - view.size; };
#pragma unroll
  for (int first = 1; first < kMost; first += kAhead) {
    decltype(get(0)) got[kAhead];
#pragma unroll
    for (int k = 0; k < kAhead; ++k)
      if (first + k < view.size) got[k] = get(peer_of(first + k));
#pragma unroll
    for (int k = 0; k < kAhead; ++k)
      if (first + k < view.size) use(peer_of(first + k), got[k]);
  }
}

// Waits for the word of every peer, `apart` bytes from one rank's to the next in memory of this rank, wipes them, and reduces them with
// this rank's own in the order of the ranks. kMost: ranks that the code is unrolled for, at least view.size. kTogether: all words that are
// missing are looked for at once, for one after the other each takes the way to memory and back; that needs registers.
template <typename T, int kMost, bool kSums, int kLoads = 4, bool kTogether = false>
__device__ __forceinline__ uint4 take_and_reduce(const View& view, char* first, std::size_t apart, const uint4& own, Fold fold,
                                                 Wait& wait) {
  constexpr int kAhead = kMost < kLoads ? kMost : kLoads;
  Values<T> sum;
#pragma unroll
  for (int from = 0; from < kMost; from += kAhead) {
    uint4 words[kAhead];
#pragma unroll
    for (int k = 0; k < kAhead; ++k)
      if (const int p = from + k; p < view.size) words[k] = p == view.rank ? own : load_word(first + p * apart);
    while (kTogether) {
      int missing = -1;
#pragma unroll
      for (int k = 0; k < kAhead; ++k)
        if (from + k < view.size && is_empty(words[k])) missing = from + k;
      if (missing < 0 || wait.over(view, missing)) break;
#pragma unroll
      for (int k = 0; k < kAhead; ++k)
        if (from + k < view.size && is_empty(words[k])) words[k] = load_word(first + (from + k) * apart);
    }
#pragma unroll
    for (int k = 0; k < kAhead; ++k) {
      const int p = from + k;
      if (p >= view.size) continue;
      if (p != view.rank) {
        while (is_empty(words[k]) && !wait.over(view, p)) words[k] = load_word(first + p * apart);
        wipe(first + p * apart);
      }
      if (p == 0) sum = Values<T>::of(words[k]);
      else combine<kSums>(sum, Values<T>::of(words[k]), fold);
    }
  }
  return finish<kSums>(sum, fold, view.size);
}

// Calls work(T, Most<2 | 4 | 8>) for a type of words and a number of ranks.
template <int kMost>
struct Most {
  static constexpr int value = kMost;
};
template <typename T, typename Work>
void with_most(int size, const Work& work) {
  if (size <= 2) work(T(), Most<2>());
  else if (size <= 4) work(T(), Most<4>());
  else work(T(), Most<8>());
}
template <typename Work>
void with_type(DType dtype, int size, const Work& work) {
  switch (dtype) {
    case DType::f32: return with_most<float>(size, work);
    case DType::f16: return with_most<__half>(size, work);
    case DType::bf16: return with_most<__nv_bfloat16>(size, work);
    default: throw Error(ErrorCode::internal, "words are of f32, f16 or bf16");
  }
}

}  // namespace tandem::peer
