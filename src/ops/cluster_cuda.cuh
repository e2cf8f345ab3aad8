// Blocks of a thread-block cluster: a barrier, and reads of each other's shared memory. Clusters begin with compute capability 9.0: before,
// and where a kernel is started without (Start::cluster is 1), every block is alone. For *_cuda.cu files.
#pragma once

#include <cuda_runtime.h>

namespace tandem::cuda {

// All threads of all blocks: what was written to shared memory before is seen after.
__device__ __forceinline__ void wait_for_cluster() {
#if __CUDA_ARCH__ >= 900
  asm volatile(
      "barrier.cluster.arrive.release.aligned;\n"
      "barrier.cluster.wait.acquire.aligned;" ::
          : "memory");
#else
  __syncthreads();
#endif
}

// `own`: an address in this block's shared memory, of a float or aligned to 16 bytes; the same place is read in block `rank` of the
// cluster.
__device__ __forceinline__ unsigned cluster_address(const void* own, int rank) {
  const auto here = static_cast<unsigned>(__cvta_generic_to_shared(own));
  unsigned there = here;
#if __CUDA_ARCH__ >= 900
  asm volatile("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(there) : "r"(here), "r"(rank));
#endif
  return there;
}
__device__ __forceinline__ float read_cluster(const float* own, int rank) {
#if __CUDA_ARCH__ >= 900
  float value;
  asm volatile("ld.shared::cluster.f32 %0, [%1];" : "=f"(value) : "r"(cluster_address(own, rank)) : "memory");
  return value;
#else
  return *own;
#endif
}
__device__ __forceinline__ float4 read_cluster(const float4* own, int rank) {
#if __CUDA_ARCH__ >= 900
  float4 value;
  asm volatile("ld.shared::cluster.v4.f32 {%0, %1, %2, %3}, [%4];"
               : "=f"(value.x), "=f"(value.y), "=f"(value.z), "=f"(value.w)
               : "r"(cluster_address(own, rank))
               : "memory");
  return value;
#else
  return *own;
#endif
}

}  // namespace tandem::cuda
