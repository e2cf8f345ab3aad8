// Counters by which the last block of several finds out that it is: see arrivals_cuda.cuh.
#pragma once

#include <cstddef>
#include <cstdint>

#include "device/cuda/runtime.h"

namespace tandem::cuda {

// So many zeros, which a kernel's runs leave as zeros; runs of one prepared kernel follow one another.
class Arrivals {
 public:
  Arrivals() = default;
  Arrivals(CudaDevice& device, std::int64_t count)
      : memory_(device.shared_from_this(), static_cast<std::size_t>(count) * sizeof(unsigned)) {
    check(cudaMemsetAsync(memory_.data(), 0, memory_.bytes(), cudaStreamPerThread), "clearing counters");
    finish(cudaStreamPerThread, "clearing counters");
  }
  unsigned* counters() const { return reinterpret_cast<unsigned*>(memory_.data()); }

 private:
  DeviceMemory memory_;
};

}  // namespace tandem::cuda
