// Memory given back so that nobody waits for ever: CUDA's own calls wait for all that a GPU was given. Private to device/cuda.
#pragma once

#include <cuda_runtime.h>

#include "tandem/deadline.h"

namespace tandem::cuda {

inline constexpr int kAllGpus = -1;

// Work of a GPU that ends with this event, which is recorded anew by each run and in no recording; until unwatch().
void watch(int ordinal, cudaEvent_t end);
void unwatch(cudaEvent_t end) noexcept;
// Whether all work that is watched on the GPU has ended. Waits for nothing.
bool is_idle(int ordinal) noexcept;
// The same, but waits. What was waited for in vain is not waited for again.
bool becomes_idle(int ordinal, Deadline deadline) noexcept;

// Gives memory back by one of CUDA's calls, once watched work of the GPU that may use it has ended. Where that takes longer than 4 s, or
// the GPU is lost, the memory is kept until free_kept(). Work that only the caller knows of is waited for by CUDA, without a deadline.
void free_when_idle(int ordinal, void* memory, cudaError_t (*free)(void*)) noexcept;
// Gives back what was kept and is not in use any more. Waits for no work that is watched.
void free_kept() noexcept;
bool any_kept() noexcept;

}  // namespace tandem::cuda
