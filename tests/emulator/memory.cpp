// CUDA's calls for memory, as far as the project uses them: all of it is the host's.
#include "emulator/memory.h"

#include <cstdlib>
#include <cstring>
#include <map>

#include "emulator/gpu.h"

namespace tandem::emulator {
namespace {

constexpr std::size_t kTotal = std::size_t{8} << 30;  // of each GPU

struct Known {
  std::size_t bytes;
  cudaMemoryType type;
  int gpu;
};

std::mutex mutex;
std::map<std::uintptr_t, Known>& known() {
  static auto* map = new std::map<std::uintptr_t, Known>;
  return *map;
}

std::size_t used(int gpu) {
  std::size_t sum = 0;
  for (const auto& [at, one] : known())
    if (one.type == cudaMemoryTypeDevice && one.gpu == gpu) sum += one.bytes;
  return sum;
}

cudaError_t allocate(void** memory, std::size_t bytes, cudaMemoryType type) {
  const int gpu = current_gpu();
  {
    const std::lock_guard lock(mutex);
    if (type == cudaMemoryTypeDevice && bytes > kTotal - used(gpu)) return report(cudaErrorMemoryAllocation);
  }
  *memory = std::aligned_alloc(256, (bytes + 255) / 256 * 256);
  if (!*memory) return report(cudaErrorMemoryAllocation);
  std::memset(*memory, 0xcd, bytes);  // what nobody wrote is found out
  know(*memory, bytes, type, gpu);
  return cudaSuccess;
}

// As CUDA does, not before the GPU has done all it was given.
cudaError_t release(void* memory) {
  if (!memory) return cudaSuccess;
  Gpu::of(current_gpu()).await_all();
  if (!forget(memory)) return report(cudaErrorInvalidValue);
  std::free(memory);
  return cudaSuccess;
}

bool is_pageable(const void* at) {
  cudaPointerAttributes found{};
  return cudaPointerGetAttributes(&found, at) == cudaSuccess && found.type == cudaMemoryTypeUnregistered;
}

}  // namespace

void know(const void* memory, std::size_t bytes, cudaMemoryType type, int gpu) {
  const std::lock_guard lock(mutex);
  known()[reinterpret_cast<std::uintptr_t>(memory)] = {bytes, type, gpu};
}

bool forget(const void* memory) {
  const std::lock_guard lock(mutex);
  return known().erase(reinterpret_cast<std::uintptr_t>(memory)) > 0;
}

std::size_t memory_left(int gpu) {
  const std::lock_guard lock(mutex);
  return kTotal - used(gpu);
}

}  // namespace tandem::emulator

using namespace tandem::emulator;

extern "C" {

cudaError_t cudaMalloc(void** memory, std::size_t bytes) { return allocate(memory, bytes, cudaMemoryTypeDevice); }
cudaError_t cudaFree(void* memory) { return release(memory); }
cudaError_t cudaHostAlloc(void** memory, std::size_t bytes, unsigned) { return allocate(memory, bytes, cudaMemoryTypeHost); }
cudaError_t cudaMallocHost(void** memory, std::size_t bytes) { return allocate(memory, bytes, cudaMemoryTypeHost); }
cudaError_t cudaFreeHost(void* memory) { return release(memory); }
cudaError_t cudaHostRegister(void* memory, std::size_t bytes, unsigned) {
  know(memory, bytes, cudaMemoryTypeHost, current_gpu());
  return cudaSuccess;
}
cudaError_t cudaHostUnregister(void* memory) { return forget(memory) ? cudaSuccess : report(cudaErrorHostMemoryNotRegistered); }
cudaError_t cudaHostGetDevicePointer(void** seen, void* memory, unsigned) {
  *seen = memory;
  return cudaSuccess;
}
cudaError_t cudaMemGetInfo(std::size_t* left, std::size_t* total) {
  *left = memory_left(current_gpu());
  *total = kTotal;
  return cudaSuccess;
}

cudaError_t cudaPointerGetAttributes(cudaPointerAttributes* found, const void* at) {
  *found = {};
  found->type = cudaMemoryTypeUnregistered;
  found->device = -1;
  const auto address = reinterpret_cast<std::uintptr_t>(at);
  const std::lock_guard lock(mutex);
  auto next = known().upper_bound(address);
  if (next == known().begin()) return cudaSuccess;
  const auto& [begin, one] = *std::prev(next);
  if (address - begin >= one.bytes) return cudaSuccess;
  found->type = one.type;
  found->device = one.gpu;
  found->devicePointer = found->hostPointer = const_cast<void*>(at);
  return cudaSuccess;
}

// As CUDA does: memory that is not pinned is read at once, and was written when the call returns.
cudaError_t cudaMemcpyAsync(void* to, const void* from, std::size_t bytes, cudaMemcpyKind, cudaStream_t stream) {
  CUstream_st& mine = stream_of(stream);
  if (is_pageable(from)) {
    const auto* begin = static_cast<const char*>(from);
    mine.add([to, kept = std::vector<char>(begin, begin + bytes)] { std::memcpy(to, kept.data(), kept.size()); });
  } else {
    mine.add([to, from, bytes] { std::memmove(to, from, bytes); });
  }
  return is_pageable(to) && !mine.recorder() ? cudaStreamSynchronize(stream) : cudaSuccess;
}
cudaError_t cudaMemsetAsync(void* to, int value, std::size_t bytes, cudaStream_t stream) {
  stream_of(stream).add([to, value, bytes] { std::memset(to, value, bytes); });
  return cudaSuccess;
}
// These return when all is done.
cudaError_t cudaMemcpy(void* to, const void* from, std::size_t bytes, cudaMemcpyKind kind) {
  const cudaError_t status = cudaMemcpyAsync(to, from, bytes, kind, nullptr);
  return status == cudaSuccess ? cudaDeviceSynchronize() : status;
}
cudaError_t cudaMemset(void* to, int value, std::size_t bytes) {
  const cudaError_t status = cudaMemsetAsync(to, value, bytes, nullptr);
  return status == cudaSuccess ? cudaDeviceSynchronize() : status;
}
cudaError_t cudaMemset2DAsync(void* to, std::size_t pitch, int value, std::size_t width, std::size_t height, cudaStream_t stream) {
  stream_of(stream).add([=] {
    for (std::size_t row = 0; row < height; ++row) std::memset(static_cast<char*>(to) + row * pitch, value, width);
  });
  return cudaSuccess;
}

}  // extern "C"
