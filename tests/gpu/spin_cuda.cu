#include "gpu/spin_cuda.h"

#include "device/cuda/dependent.cuh"
#include "gpu/clock_cuda.cuh"

namespace tandem::testing {
namespace {

__global__ void spin(const volatile int* stop, unsigned long long limit_ns) {
  const unsigned long long begin = now_ns();
  while (*stop == 0 && now_ns() - begin < limit_ns) __nanosleep(1000);
}

}  // namespace

void launch_spin(const volatile int* stop, double seconds, cudaStream_t stream) {
  cuda::start_kernel(stream, spin, dim3(1), dim3(1), 0, stop, static_cast<unsigned long long>(seconds * 1e9));
}

}  // namespace tandem::testing
