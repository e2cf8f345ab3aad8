#include "device/cuda/capture.h"

#include "device/cuda/runtime.h"

namespace tandem::cuda {
namespace {

// With edges: asked without, CUDA refuses where one tells of a kernel that starts early. Its name changed.
#if CUDART_VERSION >= 13000
constexpr auto kAsk = cudaStreamGetCaptureInfo;
#else
constexpr auto kAsk = cudaStreamGetCaptureInfo_v3;
#endif

}  // namespace

Capture capture_of(cudaStream_t stream) {
  Capture capture;
  const cudaGraphNode_t* nodes = nullptr;
  const cudaGraphEdgeData* edges = nullptr;
  std::size_t count = 0;
  check(kAsk(stream, &capture.status, &capture.id, &capture.graph, &nodes, &edges, &count), "asking whether a stream is recorded");
  if (capture.status == cudaStreamCaptureStatusActive) capture.after.assign(nodes, nodes + count);
  return capture;
}

}  // namespace tandem::cuda
