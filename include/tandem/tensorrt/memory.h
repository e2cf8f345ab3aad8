// TensorRT's names for memory that a program supplies. Public; include tandem/tensorrt.h.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "tandem/context.h"
#include "tandem/tensorrt/types.h"

struct CUstream_st;
typedef struct CUstream_st* cudaStream_t;  // as CUDA's headers say it
struct CUevent_st;
typedef struct CUevent_st* cudaEvent_t;

namespace nvinfer1 {

using AllocatorFlags = std::uint32_t;

// Derive from it to give contexts the memory for activations and workspace; weights are the engine's own. It must outlive what uses it.
class IGpuAllocator {
 public:
  virtual ~IGpuAllocator() = default;
  // Null where there is none.
  virtual void* allocate(std::uint64_t size, std::uint64_t alignment, AllocatorFlags flags) noexcept = 0;
  virtual bool deallocate(void* memory) noexcept = 0;
  // In the order of the stream; what still uses the memory is in it. These are the ones that are called.
  virtual void* allocateAsync(std::uint64_t size, std::uint64_t alignment, AllocatorFlags flags, cudaStream_t /*stream*/) noexcept {
    return allocate(size, alignment, flags);
  }
  virtual bool deallocateAsync(void* memory, cudaStream_t /*stream*/) noexcept { return deallocate(memory); }
};

// Derive from it to give the memory of outputs when a run is about to write them.
class IOutputAllocator {
 public:
  virtual ~IOutputAllocator() = default;
  // May give `currentMemory`, what setTensorAddress() said; null where there is none.
  virtual void* reallocateOutputAsync(const char* tensorName, void* currentMemory, std::uint64_t size, std::uint64_t alignment,
                                      cudaStream_t stream) = 0;
  // Of what is or will be there; where it depends on data, once the run has measured it.
  virtual void notifyShape(const char* tensorName, const Dims& dims) noexcept = 0;
};

class OutputAllocatorOfUser final : public tandem::OutputAllocator {
 public:
  OutputAllocatorOfUser(IOutputAllocator& user, std::string name) : user_(user), name_(std::move(name)) {}
  void* reallocate(std::size_t, void* current, std::size_t bytes, void* stream) override {
    return user_.reallocateOutputAsync(name_.c_str(), current, bytes, tandem::kDeviceAlignment, static_cast<cudaStream_t>(stream));
  }
  void notify_shape(std::size_t, const tandem::Shape& shape) override { user_.notifyShape(name_.c_str(), dims_of(shape)); }

 private:
  IOutputAllocator& user_;
  std::string name_;
};

// Derive from it to hear the time of every layer, once the run is done; a name may occur more than once.
class IProfiler {
 public:
  virtual ~IProfiler() = default;
  virtual void reportLayerTime(const char* layerName, float ms) noexcept = 0;
};

// Hands down to one of TensorRT's.
class AllocatorOfUser final : public tandem::DeviceAllocator {
 public:
  explicit AllocatorOfUser(IGpuAllocator& user) : user_(user) {}
  void* allocate(std::size_t bytes, std::size_t alignment, void* stream) override {
    return user_.allocateAsync(bytes, alignment, 0, static_cast<cudaStream_t>(stream));
  }
  void release(void* memory, void* stream) noexcept override { user_.deallocateAsync(memory, static_cast<cudaStream_t>(stream)); }

 private:
  IGpuAllocator& user_;
};

inline std::shared_ptr<tandem::DeviceAllocator> to_tandem(IGpuAllocator* user) {
  return user ? std::make_shared<AllocatorOfUser>(*user) : nullptr;
}

}  // namespace nvinfer1
