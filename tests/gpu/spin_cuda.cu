#include "gpu/spin_cuda.h"

namespace tandem::testing {
namespace {

__device__ unsigned long long now_ns() {
  unsigned long long ns;
  asm volatile("mov.u64 %0, %globaltimer;" : "=l"(ns));
  return ns;
}

__global__ void spin(const volatile int* stop, unsigned long long limit_ns) {
  const unsigned long long begin = now_ns();
  while (*stop == 0 && now_ns() - begin < limit_ns) __nanosleep(1000);
}

}  // namespace

void launch_spin(const volatile int* stop, double seconds, cudaStream_t stream) {
  spin<<<1, 1, 0, stream>>>(stop, static_cast<unsigned long long>(seconds * 1e9));
}

}  // namespace tandem::testing
