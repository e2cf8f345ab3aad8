// In place of src/device/cuda/memory.cuh, for emulated GPUs.
#pragma once

#include <cstdint>

#include "emulator/cuda_words.h"

namespace tandem::cuda {

// As they need not: in four pieces, now and then with others' work between.
inline uint4 load_word(const void* at) {
  const auto* from = static_cast<const std::uint32_t*>(at);
  uint4 v;
  v.w = __atomic_load_n(from + 3, __ATOMIC_RELAXED);
  v.y = __atomic_load_n(from + 1, __ATOMIC_RELAXED);
  v.x = __atomic_load_n(from + 0, __ATOMIC_RELAXED);
  v.z = __atomic_load_n(from + 2, __ATOMIC_RELAXED);
  return v;
}
inline void store_word(void* at, uint4 v) {
  thread_local unsigned count = 0;
  auto* to = static_cast<std::uint32_t*>(at);
  __atomic_store_n(to + 2, v.z, __ATOMIC_RELAXED);
  __atomic_store_n(to + 0, v.x, __ATOMIC_RELAXED);
  if (++count % 61 == 0) emulator::Fibers::here().yield();
  __atomic_store_n(to + 1, v.y, __ATOMIC_RELAXED);
  __atomic_store_n(to + 3, v.w, __ATOMIC_RELAXED);
}
inline std::uint32_t load_acquire(const std::uint32_t* at) { return __atomic_load_n(at, __ATOMIC_ACQUIRE); }
inline void store_release(std::uint32_t* at, std::uint32_t v) { __atomic_store_n(at, v, __ATOMIC_RELEASE); }
inline uint4 load_once(const void* at) { return *static_cast<const uint4*>(at); }
inline unsigned count_in_order(unsigned* at) { return __atomic_fetch_add(at, 1u, __ATOMIC_ACQ_REL); }

}  // namespace tandem::cuda
