// Memory of the thread's current GPU, and of the host as that GPU sees it, that belongs to one object; filled and given back without
// waiting for ever, nor for kernels that wait for peers.
#pragma once

#include <cstddef>
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

// Return when it is done. In streams of their own: others may hold kernels that wait. Errors as of cuda::finish().
void fill_on_gpu(void* memory, int byte, std::size_t bytes, const char* what);
void copy_to_gpu(void* to, const void* from, std::size_t bytes, const char* what);

// Whole pages of the host's memory that the GPU sees. To be let go of by hide().
class ShownPages {
 public:
  // `memory` is what the pages are of, kept as long as they are shown. Throws what CUDA says.
  ShownPages(void* pages, std::size_t bytes, std::shared_ptr<const void> memory);
  ~ShownPages();
  ShownPages(const ShownPages&) = delete;

  int gpu() const { return gpu_; }
  // Where the GPU sees what lies there for the host.
  void* on_gpu(void* at) const;

 private:
  std::shared_ptr<const void> memory_;
  void* pages_ = nullptr;
  int gpu_ = 0;
};
// As cuda::drop_when_idle(), of the GPU that sees them.
void hide(std::shared_ptr<const ShownPages> pages) noexcept;

}  // namespace tandem::peer
