// What programs that run cuDNN alone do alike: its frontend, and its start. For one file of a program; of Tandem only the opening of the
// library is used.
#pragma once

#define NV_CUDNN_FRONTEND_USE_DYNAMIC_LOADING
#define CUDNN_FRONTEND_SKIP_JSON_LIB
namespace cudnn_frontend {
inline void* cudnn_dlhandle = nullptr;  // through which it calls cuDNN
}
#include <cudnn_frontend.h>

#include "core/check.h"
#include "device/cuda/library.h"
#include "gpu_alone.h"

namespace alone {

namespace fe = cudnn_frontend;

inline void require(fe::error_t status) {
  if (status.is_bad()) tandem::fail(tandem::ErrorCode::unsupported, "cuDNN: {}", status.get_message());
}

// For the life of the process.
struct Cudnn {
  Cudnn() {
    fe::cudnn_dlhandle = tandem::cuda::library(tandem::cuda::Which::cudnn).handle();
    require(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
    if (fe::detail::create_handle(&handle) != CUDNN_STATUS_SUCCESS || fe::detail::set_stream(handle, stream) != CUDNN_STATUS_SUCCESS)
      tandem::fail(tandem::ErrorCode::internal, "cuDNN does not start");
  }
  cudnnHandle_t handle = nullptr;
  cudaStream_t stream = nullptr;
};

}  // namespace alone
