// What tests for GPUs find where they run.
#pragma once

#include <cuda_runtime.h>

#include <cstdlib>
#include <string>

namespace tandem::testing {

inline bool has_gpu() {
  int count = 0;
  return cudaGetDeviceCount(&count) == cudaSuccess && count > 0;
}

// TANDEM_MODELS is of the machine that built this; packed tests run on others.
inline std::string model_path(const std::string& name) {
  const char* folder = std::getenv("TANDEM_TEST_MODELS");
  return std::string(folder ? folder : TANDEM_MODELS) + "/" + name + ".onnx";
}

}  // namespace tandem::testing
