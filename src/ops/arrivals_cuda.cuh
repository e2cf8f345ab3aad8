// The last of several blocks goes on with what all of them have made. For *_cuda.cu files; the counters are those of arrivals_cuda.h.
#pragma once

#include "device/cuda/memory.cuh"

namespace tandem::cuda {

// Whether this block is the last of so many to come here; what the others wrote before is then visible. By all threads, once in a kernel.
__device__ __forceinline__ bool is_last_to_arrive(unsigned* arrived, unsigned blocks) {
  __shared__ bool is_last;
  __syncthreads();
  if (threadIdx.x == 0) {  // its order holds for the block, whose threads the barriers order with it
    is_last = count_in_order(arrived) + 1 == blocks;
    if (is_last) *arrived = 0;
  }
  __syncthreads();
  return is_last;
}

}  // namespace tandem::cuda
