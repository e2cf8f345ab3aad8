// A GPU as the thread's current one for a scope, for what outlives or does not know its CudaDevice. Private to device/cuda.
#pragma once

#include "device/cuda/runtime.h"

namespace tandem::cuda {

class Current {
 public:
  explicit Current(int ordinal) {
    check(cudaGetDevice(&before_), "asking for the current GPU");
    check(cudaSetDevice(ordinal), "choosing a GPU");
  }
  ~Current() { cudaSetDevice(before_); }
  Current(const Current&) = delete;

 private:
  BesideRecordings allowed_;
  int before_ = 0;
};

}  // namespace tandem::cuda
