// CUDA's calls that ask what a GPU is and what went wrong, as far as the project uses them. What emulated GPUs do not have says so.
#include <cstring>
#include <string>
#include <utility>

#include "emulator/gpu.h"

namespace tandem::emulator {
namespace {

thread_local cudaError_t last = cudaSuccess;

}  // namespace

cudaError_t report(cudaError_t status) { return last = status; }

}  // namespace tandem::emulator

using namespace tandem::emulator;

extern "C" {

cudaError_t cudaGetLastError() { return std::exchange(last, cudaSuccess); }
const char* cudaGetErrorString(cudaError_t status) { return status == cudaErrorNotSupported ? "emulated GPUs lack it" : "an error"; }
const char* cudaGetErrorName(cudaError_t status) {
  thread_local std::string name;
  return (name = "error " + std::to_string(static_cast<int>(status))).c_str();
}

cudaError_t cudaGetDeviceCount(int* count) {
  *count = gpu_count();
  return *count > 0 ? cudaSuccess : report(cudaErrorNoDevice);
}
cudaError_t cudaGetDevice(int* ordinal) {
  *ordinal = current_gpu();
  return cudaSuccess;
}
cudaError_t cudaSetDevice(int ordinal) {
  if (ordinal < 0 || ordinal >= gpu_count()) return report(cudaErrorInvalidDevice);
  choose_gpu(ordinal);
  return cudaSuccess;
}
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr which, int) {
  switch (which) {
    case cudaDevAttrComputeCapabilityMajor: *value = 8; return cudaSuccess;
    case cudaDevAttrComputeCapabilityMinor: *value = 0; return cudaSuccess;
    case cudaDevAttrMultiProcessorCount: *value = kMultiprocessors; return cudaSuccess;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin: *value = 163 << 10; return cudaSuccess;
    case cudaDevAttrClockRate: *value = 1'000'000; return cudaSuccess;  // kHz: clock64() counts nanoseconds
    default: return report(cudaErrorNotSupported);
  }
}
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int ordinal) {
  *properties = {};
  std::strncpy(properties->name, "emulated GPU", sizeof properties->name - 1);
  properties->uuid.bytes[0] = static_cast<char>(1 + number_of(ordinal));
  return cudaSuccess;
}
cudaError_t cudaDeviceCanAccessPeer(int* can, int, int) {
  *can = 1;
  return cudaSuccess;
}
cudaError_t cudaFuncGetAttributes(cudaFuncAttributes* attributes, const void*) {
  *attributes = {};
  return cudaSuccess;
}

cudaError_t cudaEventCreate(cudaEvent_t* event) { return cudaEventCreateWithFlags(event, 0); }
cudaError_t cudaEventElapsedTime(float*, cudaEvent_t, cudaEvent_t) { return report(cudaErrorNotSupported); }
cudaError_t cudaGraphGetNodes(cudaGraph_t, cudaGraphNode_t*, std::size_t* count) {
  *count = 0;
  return cudaSuccess;
}
cudaError_t cudaLaunchKernelExC(const cudaLaunchConfig_t*, const void*, void**) { return report(cudaErrorNotSupported); }
cudaError_t cudaGraphAddKernelNode(cudaGraphNode_t*, cudaGraph_t, const cudaGraphNode_t*, std::size_t, const cudaKernelNodeParams*) {
  return report(cudaErrorNotSupported);
}
cudaError_t cudaGraphAddDependencies(cudaGraph_t, const cudaGraphNode_t*, const cudaGraphNode_t*, const cudaGraphEdgeData*, std::size_t) {
  return report(cudaErrorNotSupported);
}
cudaError_t cudaGraphNodeGetDependencies(cudaGraphNode_t, cudaGraphNode_t*, cudaGraphEdgeData*, std::size_t*) {
  return report(cudaErrorNotSupported);
}
cudaError_t cudaGraphNodeGetDependentNodes(cudaGraphNode_t, cudaGraphNode_t*, cudaGraphEdgeData*, std::size_t*) {
  return report(cudaErrorNotSupported);
}
cudaError_t cudaGraphNodeGetType(cudaGraphNode_t, cudaGraphNodeType*) { return report(cudaErrorNotSupported); }
cudaError_t cudaGraphMemsetNodeGetParams(cudaGraphNode_t, cudaMemsetParams*) { return report(cudaErrorNotSupported); }
cudaError_t cudaGraphDestroyNode(cudaGraphNode_t) { return report(cudaErrorNotSupported); }
cudaError_t cudaGraphRetainUserObject(cudaGraph_t, cudaUserObject_t, unsigned, unsigned) { return report(cudaErrorNotSupported); }
cudaError_t cudaUserObjectCreate(cudaUserObject_t*, void*, cudaHostFn_t, unsigned, unsigned) { return report(cudaErrorNotSupported); }
cudaError_t cudaStreamGetCaptureInfo(cudaStream_t, cudaStreamCaptureStatus*, unsigned long long*, cudaGraph_t*, const cudaGraphNode_t**,
                                     const cudaGraphEdgeData**, std::size_t*) {
  return report(cudaErrorNotSupported);
}
cudaError_t cudaLibraryLoadData(cudaLibrary_t*, const void*, cudaJitOption*, void**, unsigned, cudaLibraryOption*, void**, unsigned) {
  return report(cudaErrorNotSupported);
}
cudaError_t cudaLibraryGetKernel(cudaKernel_t*, cudaLibrary_t, const char*) { return report(cudaErrorNotSupported); }

}  // extern "C"
