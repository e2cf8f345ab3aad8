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
#include "emulator/cuda_bits.h"
#include "emulator/cuda_warps.h"

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
#define __noinline__
// A block is played by one thread.
#undef __shared__
#define __shared__ thread_local

namespace tandem::emulator {

// In place of an array that is `extern __shared__`.
template <typename T>
T* dynamic_shared() {
  return reinterpret_cast<T*>(Block::here().shared());
}

}  // namespace tandem::emulator

inline void __syncthreads() { tandem::emulator::Block::here().meet(); }
inline int __syncthreads_or(int vote) { return tandem::emulator::Block::here().meet(vote != 0); }

inline void __threadfence() { __atomic_thread_fence(__ATOMIC_SEQ_CST); }
inline void __threadfence_system() { __atomic_thread_fence(__ATOMIC_SEQ_CST); }
inline std::size_t __cvta_generic_to_shared(const void* at) { return tandem::emulator::shared_number(at); }
template <typename T>
T atomicAdd(T* at, std::type_identity_t<T> value) {
  return __atomic_fetch_add(at, value, __ATOMIC_SEQ_CST);
}
template <typename T>
T atomicExch(T* at, std::type_identity_t<T> value) {
  return __atomic_exchange_n(at, value, __ATOMIC_SEQ_CST);
}
template <typename T>
T atomicMax(T* at, std::type_identity_t<T> value) {
  T seen = __atomic_load_n(at, __ATOMIC_SEQ_CST);
  while (seen < value && !__atomic_compare_exchange_n(at, &seen, value, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST)) {
  }
  return seen;
}
template <typename T>
T atomicOr(T* at, std::type_identity_t<T> value) {
  return __atomic_fetch_or(at, value, __ATOMIC_SEQ_CST);
}
template <typename T>
T __ldcg(const T* at) {
  return *at;
}
template <typename T>
void __stwb(T* at, std::type_identity_t<T> value) {
  *at = value;
}

using std::isfinite;
using std::isinf;
using std::isnan;

// What CUDA offers to nvcc alone.
template <typename... Parameters>
cudaError_t cudaFuncSetAttribute(void (*)(Parameters...), cudaFuncAttribute, int) {
  return cudaSuccess;
}
template <typename... Parameters>
cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessor(int* blocks, void (*)(Parameters...), int, std::size_t) {
  *blocks = 2;
  return cudaSuccess;
}
template <typename... Parameters>
cudaError_t cudaOccupancyMaxActiveClusters(int* clusters, void (*)(Parameters...), const cudaLaunchConfig_t*) {
  *clusters = 0;
  return cudaSuccess;
}

// Who looks at the clock waits for others, and lets them go on.
inline long long clock64() {
  tandem::emulator::Fibers::here().yield();
  return std::chrono::steady_clock::now().time_since_epoch() / std::chrono::nanoseconds(1);
}

inline void __nanosleep(unsigned) { tandem::emulator::Fibers::here().yield(); }

template <typename A, typename B>
constexpr std::common_type_t<A, B> min(A a, B b) {
  return b < a ? b : a;
}
template <typename A, typename B>
constexpr std::common_type_t<A, B> max(A a, B b) {
  return a < b ? b : a;
}
