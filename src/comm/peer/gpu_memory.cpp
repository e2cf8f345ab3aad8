#include "comm/peer/gpu_memory.h"

namespace tandem::peer {
namespace {

struct SideStream {
  SideStream() { cuda::check(cudaStreamCreateWithFlags(&handle, cudaStreamNonBlocking), "making a stream"); }
  ~SideStream() { cudaStreamDestroy(handle); }  // waits for nothing
  SideStream(const SideStream&) = delete;
  cudaStream_t handle = nullptr;
};

}  // namespace

void fill_on_gpu(void* memory, int byte, std::size_t bytes, const char* what) {
  const SideStream stream;
  cuda::check(cudaMemsetAsync(memory, byte, bytes, stream.handle), what);
  cuda::finish(stream.handle, what);
}

void copy_to_gpu(void* to, const void* from, std::size_t bytes, const char* what) {
  const SideStream stream;
  cuda::check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyHostToDevice, stream.handle), what);
  cuda::finish(stream.handle, what);
}

ShownPages::ShownPages(void* pages, std::size_t bytes, std::shared_ptr<const void> memory) : memory_(std::move(memory)) {
  cuda::check(cudaGetDevice(&gpu_), "asking for the current GPU");
  cuda::check(cudaHostRegister(pages, bytes, cudaHostRegisterMapped | cudaHostRegisterPortable), "letting the GPU see a page of the host");
  pages_ = pages;
}

ShownPages::~ShownPages() { cudaHostUnregister(pages_); }

void* ShownPages::on_gpu(void* at) const {
  void* seen = nullptr;
  cuda::check(cudaHostGetDevicePointer(&seen, at, 0), "asking where the GPU sees a page of the host");
  return seen;
}

void hide(std::shared_ptr<const ShownPages> pages) noexcept {
  if (!pages) return;
  const int gpu = pages->gpu();  // before they are moved
  cuda::drop_when_idle(gpu, std::move(pages));
}

}  // namespace tandem::peer
