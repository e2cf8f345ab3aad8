// A clock that is the same on all multiprocessors.
#pragma once

namespace tandem::testing {

__device__ __forceinline__ unsigned long long now_ns() {
  unsigned long long ns;
  asm volatile("mov.u64 %0, %globaltimer;" : "=l"(ns));
  return ns;
}

}  // namespace tandem::testing
