// Where the memory of contexts comes from, if not from Tandem. Public; belongs to device.
#pragma once

#include <cstddef>

namespace tandem {

// What a context's memory must be aligned to.
inline constexpr std::size_t kDeviceAlignment = 256;

// A source of memory of one device, such as a pool that a program shares between libraries. Called by whichever thread uses a context
// that has it, one call at a time per context.
class DeviceAllocator {
 public:
  virtual ~DeviceAllocator() = default;
  // `bytes` of memory of the rank's device (of the host for CPU ranks), aligned to `alignment`, a power of two; null where there is none.
  // `stream` is a cudaStream_t of that GPU, null for CPU ranks: work that uses the memory is given to it, or waits for what is in it now.
  virtual void* allocate(std::size_t bytes, std::size_t alignment, void* stream) = 0;
  // Takes back what allocate() gave. What still uses it is in `stream`, or `stream` waits for it; it is null where nothing does.
  virtual void release(void* memory, void* stream) noexcept = 0;
};

}  // namespace tandem
