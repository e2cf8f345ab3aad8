// CUDA's calls for streams, events and graphs, as far as the project uses them.
#include <utility>

#include "emulator/gpu.h"

using namespace tandem::emulator;

struct CUgraph_st {
  std::shared_ptr<Recorded> recorded;
};
// Its branches but the first have streams of their own.
struct CUgraphExec_st {
  std::shared_ptr<Recorded> recorded;
  std::vector<std::unique_ptr<CUstream_st>> branches;
};

namespace {

thread_local cudaStreamCaptureMode mode = cudaStreamCaptureModeGlobal;

std::shared_ptr<Moment> mark(CUstream_st& stream) {
  auto moment = std::make_shared<Moment>();
  stream.queue.add([moment] { moment->pass(); });
  return moment;
}

void await(CUstream_st& stream, const std::shared_ptr<Moment>& moment) {
  if (moment) stream.queue.add([moment] { moment->await(); });
}

}  // namespace

extern "C" {

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned) {
  *stream = new CUstream_st(current_gpu());
  return cudaSuccess;
}
cudaError_t cudaStreamCreate(cudaStream_t* stream) { return cudaStreamCreateWithFlags(stream, 0); }
cudaError_t cudaStreamCreateWithPriority(cudaStream_t* stream, unsigned flags, int) { return cudaStreamCreateWithFlags(stream, flags); }
cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  delete stream;
  return cudaSuccess;
}
cudaError_t cudaStreamQuery(cudaStream_t stream) {
  return stream_of(stream).queue.done() ? cudaSuccess : cudaErrorNotReady;  // nothing to keep
}
cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  while (!stream_of(stream).queue.done()) std::this_thread::yield();
  return cudaSuccess;
}
cudaError_t cudaDeviceSynchronize() {
  Gpu::of(current_gpu()).await_all();
  return cudaSuccess;
}
cudaError_t cudaStreamGetDevice(cudaStream_t stream, int* gpu) {
  *gpu = stream_of(stream).queue.gpu();
  return cudaSuccess;
}
cudaError_t cudaDeviceGetStreamPriorityRange(int* least, int* greatest) {
  *least = *greatest = 0;
  return cudaSuccess;
}
cudaError_t cudaLaunchHostFunc(cudaStream_t stream, cudaHostFn_t work, void* data) {
  stream_of(stream).add([work, data] { work(data); });
  return cudaSuccess;
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned) {
  *event = new CUevent_st;
  return cudaSuccess;
}
cudaError_t cudaEventDestroy(cudaEvent_t event) {
  delete event;
  return cudaSuccess;
}
cudaError_t cudaEventQuery(cudaEvent_t event) { return !event->last || event->last->passed() ? cudaSuccess : cudaErrorNotReady; }
cudaError_t cudaEventRecordWithFlags(cudaEvent_t event, cudaStream_t stream, unsigned) { return cudaEventRecord(event, stream); }
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t to) {
  CUstream_st& stream = stream_of(to);
  event->recorded.reset();
  if (!stream.recorder()) {
    event->last = mark(stream);
    return cudaSuccess;
  }
  event->recorded = stream.recorded;
  event->moment = stream.recorded->moments++;
  stream.recorded->nodes.push_back({Node::Kind::mark, stream.branch, {}, event->moment});
  return cudaSuccess;
}
cudaError_t cudaStreamWaitEvent(cudaStream_t to, cudaEvent_t event, unsigned) {
  CUstream_st& stream = stream_of(to);
  const std::shared_ptr<Recorded> recorded = event->recorded.lock();
  if (!recorded || recorded->ended) {
    if (stream.recorder()) return report(cudaErrorStreamCaptureIsolation);
    await(stream, event->last);
    return cudaSuccess;
  }
  if (!stream.recorder()) {  // it forks
    stream.recorded = recorded;
    stream.branch = recorded->branches++;
  }
  if (stream.recorded != recorded) return report(cudaErrorStreamCaptureMerge);
  recorded->nodes.push_back({Node::Kind::await, stream.branch, {}, event->moment});
  return cudaSuccess;
}

cudaError_t cudaThreadExchangeStreamCaptureMode(cudaStreamCaptureMode* other) {
  std::swap(mode, *other);
  return cudaSuccess;
}
cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode) {
  if (!stream || stream->recorder()) return report(cudaErrorStreamCaptureUnsupported);
  stream->recorded = std::make_shared<Recorded>();
  stream->branch = 0;
  return cudaSuccess;
}
cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph) {
  if (!stream->recorder() || stream->branch != 0) return report(cudaErrorStreamCaptureUnmatched);
  stream->recorded->ended = true;
  *graph = new CUgraph_st{std::exchange(stream->recorded, nullptr)};
  return cudaSuccess;
}
cudaError_t cudaStreamIsCapturing(cudaStream_t stream, cudaStreamCaptureStatus* status) {
  *status = stream_of(stream).recorder() ? cudaStreamCaptureStatusActive : cudaStreamCaptureStatusNone;
  return cudaSuccess;
}

cudaError_t cudaGraphInstantiate(cudaGraphExec_t* exec, cudaGraph_t graph, unsigned long long) {
  *exec = new CUgraphExec_st{graph->recorded, {}};
  for (int b = 1; b < graph->recorded->branches; ++b) (*exec)->branches.push_back(std::make_unique<CUstream_st>(current_gpu()));
  return cudaSuccess;
}
cudaError_t cudaGraphUpload(cudaGraphExec_t, cudaStream_t) { return cudaSuccess; }
cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
  delete graph;
  return cudaSuccess;
}
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec) {
  delete exec;
  return cudaSuccess;
}
// A branch begins where it first waits, and has been waited for by the first one before that ends: recordings are made so.
cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t to) {
  CUstream_st& first = stream_of(to);
  std::vector<std::shared_ptr<Moment>> moments(static_cast<std::size_t>(exec->recorded->moments));
  for (const Node& node : exec->recorded->nodes) {
    CUstream_st& stream = node.branch == 0 ? first : *exec->branches[static_cast<std::size_t>(node.branch) - 1];
    switch (node.kind) {
      case Node::Kind::task: stream.queue.add(node.task); break;
      case Node::Kind::mark: moments[static_cast<std::size_t>(node.moment)] = mark(stream); break;
      case Node::Kind::await: await(stream, moments[static_cast<std::size_t>(node.moment)]); break;
    }
  }
  return cudaSuccess;
}

}  // extern "C"
