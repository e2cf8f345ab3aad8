// Memory and streams of a GPU, for callers that have no library of their own for them. Public.
#pragma once

#include <cstddef>
#include <memory>

namespace tandem {

// How many GPUs this process can use: 0 in programs built without CUDA, and without a driver. Never throws.
int gpu_count();

// Whether this process has lost a GPU: to work that does not end, or to an error that broke the GPU's context. A program that ends then
// writes out what it has (std::fflush) and calls std::quick_exit(): exit handlers of NVIDIA's libraries wait for such work. Never waits.
bool gpu_lost() noexcept;

// What CUDA calls cudaStreamLegacy: its default stream where null means another, as to Context::enqueue().
inline void* default_stream() { return reinterpret_cast<void*>(1); }

// One GPU of this process; copies are the same one. Callable from any thread. A stream is a cudaStream_t of this GPU, borrowed; null is
// CUDA's default stream, which waits for all streams that were made blocking, and they for it.
class Gpu {
 public:
  // Throws Error(unsupported) where there is no GPU of this number, saying why.
  explicit Gpu(int number);
  int number() const;
  // Bytes of the GPU, aligned to 256, contents undefined; null for none. The last owner gives them back once the GPU has done all that
  // it was given; where work of a context takes more than 4 s for that, a later call does. Throws Error(out_of_memory) with the bytes
  // needed and free.
  std::shared_ptr<std::byte> allocate(std::size_t bytes) const;
  // In the order of the stream. Either side may be memory of the host: such memory may be used again once this returns if it is read, and
  // after synchronize() if it is written. So copies from pinned or managed memory wait until they are done, and throw as synchronize()
  // does. What a caller records reads memory of the host when it is replayed.
  void copy(void* to, const void* from, std::size_t bytes, void* stream = nullptr) const;
  // What is given to stream `later` from now on starts after all that `earlier` was given so far. Waits for nothing.
  void order(void* earlier, void* later) const;
  // Until what the stream was given is done. Throws Error(timeout), and the error of work that failed.
  void synchronize(void* stream = nullptr, double deadline_s = 30) const;

 private:
  struct Data;
  std::shared_ptr<Data> data_;
};

}  // namespace tandem
