// Dependent launches: a kernel that starts while the one before it in the stream still runs, so that no time is lost between them.
//
// The rules, which are all that makes it right:
// - Every block waits (wait_for_previous) before it ends, and before it touches global memory: it may read before only what the plan calls
//   resident (RunArgs::resident), and writes nothing; of anything it may ask for lines to come to the L2 cache, by which it sees nothing of
//   them. Waiting ends when the kernel before is over, with all it wrote visible.
// - A kernel lets the next one begin (let_next_begin) as early as it likes, also before it has waited: the next may then run beside the
//   kernel before this one too, or beside earlier ones. It is right nevertheless, because each waits before it ends: that the kernel before
//   is over means that all before that are.
// - What a kernel before may have written is never read through the read-only cache: no __ldg, and no `const … __restrict__` parameters,
//   of which the compiler makes such loads, and which it may move in front of the wait.
// - Kernels of libraries are launched as ever; waiting for one is as good as for one of ours. What follows a copy, a fill or work of the
// host
//   is launched as ever too.
// GPUs before compute capability 9.0 do not have it: the device's half compiles to nothing, and nobody starts anything early there.
#pragma once

#include "device/cuda/start.h"

namespace tandem::cuda {

__device__ __forceinline__ void let_next_begin() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

__device__ __forceinline__ void wait_for_previous() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

// The first statement of kernels that have nothing to do before they wait.
__device__ __forceinline__ void begin_dependent() {
  let_next_begin();
  wait_for_previous();
}

// kernel<<<grid, block, shared, start.stream>>>(arguments…); errors are for check_launch().
template <typename... Parameters, typename... Arguments>
void start_kernel(const Start& start, void (*kernel)(Parameters...), dim3 grid, dim3 block, std::size_t shared, Arguments&&... arguments) {
  with_configuration(start, grid, block, shared, [&](const cudaLaunchConfig_t* configuration) {
    return cudaLaunchKernelEx(configuration, kernel, static_cast<Arguments&&>(arguments)...);
  });
}

}  // namespace tandem::cuda
