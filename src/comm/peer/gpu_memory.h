// Memory of the thread's current GPU that belongs to one object.
#pragma once

#include <memory>

#include "device/cuda/runtime.h"

namespace tandem::peer {

struct FreeOnGpu {
  void operator()(void* memory) const { cuda::free_device(memory); }
};

// With contents undefined; `what` is done, for the error.
template <typename T>
std::unique_ptr<T, FreeOnGpu> allocate_on_gpu(const char* what) {
  void* memory = nullptr;
  cuda::check(cudaMalloc(&memory, sizeof(T)), what);
  return std::unique_ptr<T, FreeOnGpu>(static_cast<T*>(memory));
}

}  // namespace tandem::peer
