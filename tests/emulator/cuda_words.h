// Included before all else in files of kernels that are compiled for emulated GPUs: CUDA C++'s words, as far as these kernels use them.
#pragma once

#include <cuda_runtime.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <type_traits>

#include "emulator/block.h"

// Read at each use: unsigned numbers, of the thread that reads.
template <auto kGet>
struct EmulatedDims {
  struct X {
    operator unsigned() const { return kGet().x; }
  } x;
  struct Y {
    operator unsigned() const { return kGet().y; }
  } y;
  struct Z {
    operator unsigned() const { return kGet().z; }
  } z;
};
inline constexpr EmulatedDims<[] { return tandem::emulator::Block::here().thread(); }> threadIdx{};
inline constexpr EmulatedDims<[] { return tandem::emulator::Block::here().index(); }> blockIdx{};
inline constexpr EmulatedDims<[] { return tandem::emulator::Block::here().grid().threads; }> blockDim{};
inline constexpr EmulatedDims<[] { return tandem::emulator::Block::here().grid().blocks; }> gridDim{};

#define __launch_bounds__(...)
// A block is played by one thread.
#undef __shared__
#define __shared__ static thread_local

inline void __syncthreads() { tandem::emulator::Block::here().meet(); }
inline int __syncthreads_or(int vote) { return tandem::emulator::Block::here().meet(vote != 0); }
inline void __syncwarp(unsigned = ~0u) { tandem::emulator::Block::here().meet_in_warp(); }

template <typename T>
T __shfl_xor_sync(unsigned, T value, int mask) {
  tandem::emulator::Block& block = tandem::emulator::Block::here();
  std::uint64_t mine = 0;
  std::memcpy(&mine, &value, sizeof value);
  const std::uint64_t theirs = block.exchange(mine, block.lane() ^ static_cast<unsigned>(mask));
  std::memcpy(&value, &theirs, sizeof value);
  return value;
}

inline void __threadfence() { __atomic_thread_fence(__ATOMIC_SEQ_CST); }
inline void __threadfence_system() { __atomic_thread_fence(__ATOMIC_SEQ_CST); }
template <typename T>
T atomicAdd(T* at, std::type_identity_t<T> value) {
  return __atomic_fetch_add(at, value, __ATOMIC_SEQ_CST);
}
template <typename T>
T atomicExch(T* at, std::type_identity_t<T> value) {
  return __atomic_exchange_n(at, value, __ATOMIC_SEQ_CST);
}
template <typename T>
T __ldcg(const T* at) {
  return *at;
}
inline float __fdiv_rn(float a, float b) { return a / b; }

// Who looks at the clock waits for others, and lets them go on.
inline long long clock64() {
  tandem::emulator::Fibers::here().yield();
  return std::chrono::steady_clock::now().time_since_epoch() / std::chrono::nanoseconds(1);
}

template <typename A, typename B>
constexpr std::common_type_t<A, B> min(A a, B b) {
  return b < a ? b : a;
}
template <typename A, typename B>
constexpr std::common_type_t<A, B> max(A a, B b) {
  return a < b ? b : a;
}
