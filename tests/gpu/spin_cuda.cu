#include "gpu/spin_cuda.h"

#include "device/cuda/dependent.cuh"
#include "device/cuda/memory.cuh"

namespace tandem::testing {
namespace {

__global__ void spin(const volatile int* stop, unsigned long long limit_ns) {
  const unsigned long long begin = cuda::global_nanoseconds();
  while (*stop == 0 && cuda::global_nanoseconds() - begin < limit_ns) __nanosleep(1000);
}

}  // namespace

void launch_spin(const volatile int* stop, double seconds, cudaStream_t stream) {
  cuda::start_kernel(stream, spin, dim3(1), dim3(1), 0, stop, static_cast<unsigned long long>(seconds * 1e9));
}

}  // namespace tandem::testing
