// Work recorded into CUDA graphs: ours, and the caller's that ours becomes part of.
#include "core/check.h"
#include "device/cuda/current.h"
#include "device/cuda/fills.h"
#include "device/cuda/runtime.h"
#include "device/cuda/trouble.h"

namespace tandem::cuda {
namespace {

class Graph final : public Recording {
 public:
  // Takes the graph, also where it throws.
  Graph(int ordinal, cudaGraph_t graph) : ordinal_(ordinal) {
    const std::unique_ptr<CUgraph_st, Destroy> mine(graph);
    fill_by_kernels(graph);
    check(cudaGraphInstantiate(&exec_, graph, 0), "instantiating a graph");
  }
  ~Graph() override {
    if (is_lost(ordinal_)) return;
    const Current current(ordinal_);
    cudaGraphExecDestroy(exec_);
  }
  void launch(Stream& stream) override { check(cudaGraphLaunch(exec_, handle_of(stream)), "launching a graph"); }

 private:
  struct Destroy {
    void operator()(cudaGraph_t graph) const { cudaGraphDestroy(graph); }
  };
  int ordinal_;
  cudaGraphExec_t exec_ = nullptr;
};

struct CaptureInfo {
  cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
  cudaGraph_t graph = nullptr;
};

CaptureInfo capture_of(Stream& stream) {
  CaptureInfo info;
#if CUDART_VERSION >= 13000
  check(cudaStreamGetCaptureInfo(handle_of(stream), &info.status, nullptr, &info.graph, nullptr, nullptr, nullptr),
        "asking whether a stream is recorded");
#else
  check(cudaStreamGetCaptureInfo_v2(handle_of(stream), &info.status, nullptr, &info.graph, nullptr, nullptr),
        "asking whether a stream is recorded");
#endif
  return info;
}

// A thread of the driver ends a graph's hold on this, and such threads may not call CUDA.
struct Held {
  std::shared_ptr<CudaDevice> device;
  std::shared_ptr<const void> needed;
};

void let_go(void* held) {
  const std::unique_ptr<Held> mine(static_cast<Held*>(held));
  mine->device->let_go_later(std::move(mine->needed));
}

}  // namespace

// Kernels that allocate while they are recorded are told so, by CUDA, in this mode.
std::unique_ptr<Recording> CudaDevice::record(Stream& stream, const std::function<void()>& work) {
  const Current current(ordinal_);
  const OwnStream own(stream);  // the default stream cannot be recorded, and another's is not ours to record
  cudaStreamCaptureMode mode = cudaStreamCaptureModeThreadLocal;
  check(cudaThreadExchangeStreamCaptureMode(&mode), "beginning to record");
  const cudaStream_t handle = handle_of(stream);
  cudaGraph_t graph = nullptr;
  try {
    check(cudaStreamBeginCapture(handle, cudaStreamCaptureModeThreadLocal), "beginning to record");
    work();
  } catch (...) {
    cudaStreamEndCapture(handle, &graph);
    if (graph) cudaGraphDestroy(graph);
    cudaThreadExchangeStreamCaptureMode(&mode);
    cudaGetLastError();
    throw;
  }
  const cudaError_t status = cudaStreamEndCapture(handle, &graph);
  cudaThreadExchangeStreamCaptureMode(&mode);
  check(status, "recording");
  return std::make_unique<Graph>(ordinal_, graph);
}

bool CudaDevice::is_recorded(Stream& stream) { return capture_of(stream).status != cudaStreamCaptureStatusNone; }

void CudaDevice::keep_with_recording(Stream& stream, std::shared_ptr<const void> needed) {
  const CaptureInfo info = capture_of(stream);
  if (info.status != cudaStreamCaptureStatusActive)
    fail(ErrorCode::invalid_argument, "what records the stream that was given was broken before, by a call that it forbids");
  auto held = std::make_unique<Held>(Held{shared_from_this(), std::move(needed)});
  cudaUserObject_t object = nullptr;
  check(cudaUserObjectCreate(&object, held.get(), let_go, 1, cudaUserObjectNoDestructorSync), "keeping a graph's memory");
  held.release();
  check(cudaGraphRetainUserObject(info.graph, object, 1, cudaGraphUserObjectMove), "keeping a graph's memory");
}

void CudaDevice::let_go_later(std::shared_ptr<const void> needed) {
  const std::lock_guard lock(mutex_);
  let_go_.push_back(std::move(needed));
  any_let_go_ = true;
}

}  // namespace tandem::cuda
