#include "device/cuda/stream_gpu.h"

#include <cuda.h>

#include "core/check.h"
#include "device/cuda/runtime.h"

namespace tandem::cuda {
namespace {

constexpr unsigned kVersion = 12000;  // of the driver's calls; later ones of these names take other arguments

template <typename F>
F* driver_call(const char* name) {
  void* found = nullptr;
  cudaDriverEntryPointQueryResult result{};
  check(cudaGetDriverEntryPointByVersion(name, &found, kVersion, cudaEnableDefault, &result), "asking the driver for its calls");
  if (!found) fail(ErrorCode::unsupported, "the NVIDIA driver lacks {}", name);
  return reinterpret_cast<F*>(found);
}

void check(CUresult status) {
  if (status != CUDA_SUCCESS)
    fail(ErrorCode::invalid_argument, "looking at the stream that was given: error {} of the NVIDIA driver", static_cast<int>(status));
}

}  // namespace

int gpu_of_stream(cudaStream_t stream, bool recorded) {
  int ordinal = -1;
  if (!recorded) {
    check(cudaStreamGetDevice(stream, &ordinal), "looking at the stream that was given");
    return ordinal;
  }
  static const auto context_of = driver_call<CUresult(CUstream, CUcontext*)>("cuStreamGetCtx");
  static const auto push = driver_call<CUresult(CUcontext)>("cuCtxPushCurrent");
  static const auto current_gpu = driver_call<CUresult(CUdevice*)>("cuCtxGetDevice");
  static const auto pop = driver_call<CUresult(CUcontext*)>("cuCtxPopCurrent");
  const BesideRecordings allowed;
  CUcontext context = nullptr;
  check(context_of(stream, &context));
  check(push(context));
  const CUresult found = current_gpu(&ordinal);
  check(pop(&context));
  check(found);
  return ordinal;
}

}  // namespace tandem::cuda
