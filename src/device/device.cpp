#include "device/device.h"

#include "core/check.h"

namespace tandem {

bool has_device_kind(std::string_view kind) { return kind == "cpu" || (kind == "cuda" && built_with_cuda()); }

DeviceMemory::DeviceMemory(std::shared_ptr<Device> device, std::shared_ptr<DeviceAllocator> allocator, std::shared_ptr<Stream> stream,
                           std::size_t bytes)
    : device_(std::move(device)), bytes_(bytes) {
  if (!allocator) {
    data_ = device_->allocate(bytes);
    return;
  }
  if (bytes == 0) return;
  void* memory = allocator->allocate(bytes, kDeviceAlignment, stream->native());
  if (!memory) fail(ErrorCode::out_of_memory, "{} bytes are needed on {}, the allocator that was given has none", bytes, device_->name());
  if (reinterpret_cast<std::uintptr_t>(memory) % kDeviceAlignment != 0) {
    allocator->release(memory, stream->native());
    fail(ErrorCode::invalid_argument, "the allocator that was given aligns memory to less than {} bytes", kDeviceAlignment);
  }
  data_ = static_cast<std::byte*>(memory);
  allocator_ = std::move(allocator);
  stream_ = std::move(stream);
}

DeviceMemory DeviceMemory::borrowed(std::byte* data, std::size_t bytes) {
  DeviceMemory memory;
  memory.data_ = data;
  memory.bytes_ = bytes;
  return memory;
}

DeviceMemory::~DeviceMemory() {
  if (!data_) return;
  if (allocator_) allocator_->release(data_, stream_->native());
  else if (device_) device_->release(data_);
}

DeviceMemory& DeviceMemory::operator=(DeviceMemory&& other) noexcept {
  std::swap(device_, other.device_);
  std::swap(allocator_, other.allocator_);
  std::swap(stream_, other.stream_);
  std::swap(bytes_, other.bytes_);
  std::swap(data_, other.data_);
  return *this;
}

std::shared_ptr<Device> open_device(std::string_view kind, int rank) {
  if (kind == "cpu") return cpu_device();
  if (kind == "cuda") return open_cuda_device(rank);
  fail(ErrorCode::unsupported, "there is no device of kind '{}': cpu and cuda are known", kind);
}

}  // namespace tandem
