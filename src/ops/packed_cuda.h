// A weight in a kernel's own layout, in one block of a GPU's memory.
#pragma once

#include "device/cuda/runtime.h"
#include "ops/kernel.h"

namespace tandem::kernels {

class PackedBlock : public Packed {
 public:
  // On the thread's current GPU; contents undefined.
  explicit PackedBlock(std::size_t bytes) : bytes_(bytes) {
    cuda::check(cudaMalloc(&data_, bytes), "memory for a weight in its kernel's layout");
  }
  ~PackedBlock() override { cuda::free_device(data_); }
  PackedBlock(const PackedBlock&) = delete;
  PackedBlock& operator=(const PackedBlock&) = delete;

  std::size_t size_bytes() const override { return data_ ? bytes_ : 0; }
  std::byte* data() override { return static_cast<std::byte*>(data_); }
  void release() override { cuda::free_device(std::exchange(data_, nullptr)); }
  // Where a run finds it.
  const std::byte* in(const RunArgs& args) const { return args.packed ? args.packed : static_cast<const std::byte*>(data_); }

 private:
  std::size_t bytes_;
  void* data_ = nullptr;
};

}  // namespace tandem::kernels
