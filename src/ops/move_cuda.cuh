// For kernels that move elements without looking at them: indices from numbers of items, and calling a template for a number of bytes.
#pragma once

#include "ops/divisor_cuda.h"
#include "ops/types_cuda.cuh"

namespace tandem::cuda {

__device__ __forceinline__ std::uint32_t quotient(std::uint32_t n, const Divisor& d) { return (__umulhi(n, d.multiplier) + n) >> d.shift; }

// Takes the position within the divisor off a number: n becomes n / d.
__device__ __forceinline__ std::uint32_t take_index(std::uint32_t& n, const Divisor& d) {
  const std::uint32_t q = quotient(n, d);
  const std::uint32_t rest = n - q * d.by;
  n = q;
  return rest;
}

// Calls `work(Tag<U>())` with a type of that many bytes, up to the 16 that one thread moves at once.
template <typename Work>
void with_moved_bytes(int bytes, const Work& work) {
  if (bytes == 16) return work(Tag<uint4>());
  with_element_bytes(static_cast<std::size_t>(bytes), work);
}

template <std::size_t kBytes>
struct Word;
template <>
struct Word<16> {
  using type = uint4;
};
template <>
struct Word<8> {
  using type = uint2;
};
template <>
struct Word<4> {
  using type = std::uint32_t;
};
template <>
struct Word<2> {
  using type = std::uint16_t;
};
template <>
struct Word<1> {
  using type = std::uint8_t;
};

// Writes a vector by one instruction; the compiler may make several of an assignment.
template <typename V>
__device__ __forceinline__ void store_vector(void* to, const V& vector) {
  typename Word<sizeof(V)>::type word;
  memcpy(&word, &vector, sizeof(V));
  __stwb(static_cast<decltype(word)*>(to), word);
}

// Where one thread moves several items: few where a launch has few items, so that all multiprocessors get some.
inline constexpr int kMoveThreads = 256;
inline constexpr std::int64_t kManyItems = 1 << 19;

// Calls `work(std::integral_constant<int, N>())` with the items of a thread.
template <typename Work>
void with_items_per_thread(std::int64_t items, const Work& work) {
  if (items >= kManyItems) return work(std::integral_constant<int, 4>());
  work(std::integral_constant<int, 1>());
}

}  // namespace tandem::cuda
