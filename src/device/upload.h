// Weights on their way to a device, and which GPU that is.
#pragma once

#include <cstddef>
#include <span>

#include "device/device.h"

namespace tandem {

// A piece of the host's memory and its place on a device, or in other memory of the host.
struct Upload {
  std::byte* to;
  const std::byte* from;
  std::size_t bytes;
};

// Copies all pieces as fast as the machine can; done when it returns. Throws Error(timeout).
void upload(Device& device, std::span<const Upload> pieces, Deadline deadline);

// The same within the host's memory, by several threads: pages of a mapped file come in as they are read.
void copy_on_host(std::span<const Upload> pieces, Deadline deadline);

// Its number among the GPUs of this process; -1 of the host.
int gpu_number(const Device& device);

// Of device/cuda, or of its stand-in in programs without it.
void upload_to_cuda(Device& device, std::span<const Upload> pieces, Deadline deadline);
int cuda_number(const Device& device);
// Whether Device::copy() returns before it has read this memory of the host: it is pinned, by whomever, or managed.
bool is_read_late_by_cuda(const void* memory);

}  // namespace tandem
