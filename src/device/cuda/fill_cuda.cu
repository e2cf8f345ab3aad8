#include <cstddef>
#include <cstdint>

#include "device/cuda/fill_kernels.h"

namespace tandem::cuda {
namespace {

__global__ void __launch_bounds__(kFillThreads) fill(std::byte* to, unsigned value, unsigned bytes, std::uint64_t count) {
  const std::uint64_t i = std::uint64_t{blockIdx.x} * kFillThreads + threadIdx.x;
  if (i >= count) return;
  if (bytes == 4) reinterpret_cast<std::uint32_t*>(to)[i] = value;
  else if (bytes == 2) reinterpret_cast<std::uint16_t*>(to)[i] = static_cast<std::uint16_t>(value);
  else reinterpret_cast<std::uint8_t*>(to)[i] = static_cast<std::uint8_t>(value);
}

}  // namespace

void* fill_kernel() { return reinterpret_cast<void*>(&fill); }

}  // namespace tandem::cuda
