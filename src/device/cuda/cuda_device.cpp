#include <fmt/format.h>

#include <algorithm>
#include <new>
#include <thread>
#include <vector>

#include "core/check.h"
#include "core/stop.h"
#include "device/cuda/runtime.h"

namespace tandem {
namespace cuda {
namespace {

// As OnDevice, for what outlives or does not know its CudaDevice.
class Current {
 public:
  explicit Current(int ordinal) {
    check(cudaGetDevice(&before_), "asking for the current GPU");
    check(cudaSetDevice(ordinal), "choosing a GPU");
  }
  ~Current() { cudaSetDevice(before_); }
  Current(const Current&) = delete;

 private:
  int before_ = 0;
};

// For a scope work goes to the stream's own again.
class OwnStream {
 public:
  explicit OwnStream(Stream& stream) : stream_(stream), before_(handle_of(stream)) { stream.redirect(nullptr); }
  ~OwnStream() {
    try {
      stream_.redirect(before_);
    } catch (const Error&) {  // it was taken before
    }
  }
  OwnStream(const OwnStream&) = delete;

 private:
  Stream& stream_;
  cudaStream_t before_;
};

class Graph final : public Recording {
 public:
  Graph(int ordinal, cudaGraph_t graph) : ordinal_(ordinal) {
    const cudaError_t status = cudaGraphInstantiate(&exec_, graph, 0);
    cudaGraphDestroy(graph);
    check(status, "instantiating a graph");
  }
  ~Graph() override {
    const Current current(ordinal_);
    cudaGraphExecDestroy(exec_);
  }
  void launch(Stream& stream) override { check(cudaGraphLaunch(exec_, handle_of(stream)), "launching a graph"); }

 private:
  int ordinal_;
  cudaGraphExec_t exec_ = nullptr;
};

class Moment final : public Event {
 public:
  explicit Moment(int ordinal) : ordinal_(ordinal) {
    const Current current(ordinal_);
    check(cudaEventCreateWithFlags(&event_, cudaEventDisableTiming), "making an event");
  }
  ~Moment() override { cudaEventDestroy(event_); }
  void record(Stream& stream) override { check(cudaEventRecord(event_, handle_of(stream)), "recording an event"); }
  void wait(Stream& stream) override { check(cudaStreamWaitEvent(handle_of(stream), event_, 0), "waiting for an event"); }

 private:
  int ordinal_;
  cudaEvent_t event_ = nullptr;
};

int attribute(cudaDeviceAttr which, int ordinal) {
  int value = 0;
  check(cudaDeviceGetAttribute(&value, which, ordinal), "asking a GPU what it can do");
  return value;
}

// As FaultKind has them.
constexpr const char* kFaultingOps[kFaultKinds] = {"Gather", "GatherND", "GatherElements", "ScatterND", "division"};

Fault* make_faults() {
  void* memory = nullptr;
  check(cudaHostAlloc(&memory, kFaultKinds * sizeof(Fault), cudaHostAllocPortable | cudaHostAllocMapped), "allocating memory of the host");
  return new (memory) Fault[kFaultKinds]();
}

// Throws what kernels reported, once.
void throw_fault(Fault* faults) {
  for (int kind = 0; kind < kFaultKinds; ++kind) {
    const Fault found = faults[kind];
    if (found.past == 0) continue;
    std::fill_n(faults, kFaultKinds, Fault{});
    if (static_cast<FaultKind>(kind) == FaultKind::division) fail(ErrorCode::invalid_argument, "integer division of {} by zero", found.index);
    fail(ErrorCode::invalid_argument, "{}: index {} is outside extent {}", kFaultingOps[kind], found.index, found.past - 1);
  }
}

}  // namespace

void check(cudaError_t status, const char* what) {
  if (status == cudaSuccess) return;
  cudaGetLastError();  // forgets what is not sticky
  const ErrorCode code = status == cudaErrorMemoryAllocation ? ErrorCode::out_of_memory
                         : status == cudaErrorNoKernelImageForDevice ? ErrorCode::unsupported
                                                                     : ErrorCode::internal;
  fail(code, "CUDA: {}: {} ({})", what, cudaGetErrorString(status), cudaGetErrorName(status));
}

CudaStream::CudaStream(std::shared_ptr<CudaDevice> device, int threads) : device_(std::move(device)), threads_(threads) {
  const Current current(device_->ordinal());
  faults_.reset(make_faults());
  check(cudaStreamCreateWithFlags(&own_, cudaStreamNonBlocking), "making a stream");
  current_ = own_;
}

CudaStream::~CudaStream() { cudaStreamDestroy(own_); }

void CudaStream::redirect(void* handle) {
  cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
  if (handle == cudaStreamLegacy || handle == cudaStreamPerThread) {  // of whatever GPU is the thread's current one
    int ordinal = -1;
    check(cudaGetDevice(&ordinal), "asking for the current GPU");
    if (ordinal != device_->ordinal())
      fail(ErrorCode::invalid_argument, "the default stream is of GPU {}, which is the thread's current one; the engine runs on GPU {}", ordinal, device_->ordinal());
    current_ = static_cast<cudaStream_t>(handle);
    return;
  }
  if (handle) check(cudaStreamIsCapturing(static_cast<cudaStream_t>(handle), &status), "looking at the stream that was given");
  if (handle && status == cudaStreamCaptureStatusNone) {  // a stream that is recorded does not say
    int ordinal = -1;
    check(cudaStreamGetDevice(static_cast<cudaStream_t>(handle), &ordinal), "looking at the stream that was given");
    if (ordinal != device_->ordinal()) fail(ErrorCode::invalid_argument, "the stream is of GPU {}, the engine runs on GPU {}", ordinal, device_->ordinal());
  }
  current_ = handle ? static_cast<cudaStream_t>(handle) : own_;
}

void CudaStream::failed(std::exception_ptr error) noexcept {
  const std::lock_guard lock(mutex_);
  if (!error_) error_ = std::move(error);
}

// Polls, so that neither a kernel that never ends nor the driver can hold the caller past the deadline.
void CudaStream::wait(Deadline deadline) {
  for (int spins = 0;; ++spins) {
    const cudaError_t status = cudaStreamQuery(current_);
    if (status != cudaErrorNotReady) {
      const std::lock_guard lock(mutex_);
      if (std::exception_ptr error = std::exchange(error_, nullptr)) std::rethrow_exception(error);
      check(status, "the work of a step");
      return throw_fault(faults_.get());
    }
    if (deadline.expired()) fail(ErrorCode::timeout, "the GPU did not finish within {:.1f} s", std::chrono::duration<double>(deadline.limit()).count());
    if (spins % 256 == 255 && StopScope::wanted()) throw Error(ErrorCode::interrupted, "interrupted");
    if (spins > 20000) std::this_thread::sleep_for(std::chrono::microseconds(50));
  }
}

CudaDevice::CudaDevice(int ordinal) : ordinal_(ordinal) {
  sm_ = 10 * attribute(cudaDevAttrComputeCapabilityMajor, ordinal) + attribute(cudaDevAttrComputeCapabilityMinor, ordinal);
  multiprocessors_ = attribute(cudaDevAttrMultiProcessorCount, ordinal);
  shared_bytes_ = attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin, ordinal);
  cudaDeviceProp properties;
  check(cudaGetDeviceProperties(&properties, ordinal), "asking a GPU for its name");
  product_ = properties.name;
  for (const char byte : properties.uuid.bytes) id_ += fmt::format("{:02x}", static_cast<unsigned char>(byte));
}

int CudaDevice::enter() {
  int before = 0;
  check(cudaGetDevice(&before), "asking for the current GPU");
  if (before != ordinal_) check(cudaSetDevice(ordinal_), "choosing a GPU");
  return before;
}

void CudaDevice::leave(int before) noexcept {
  if (before != ordinal_) cudaSetDevice(before);
}

std::string CudaDevice::name() const { return fmt::format("{} (sm_{})", product_, sm_); }

std::unique_ptr<Stream> CudaDevice::make_stream(int threads) { return std::make_unique<CudaStream>(shared_from_this(), threads); }

std::unique_ptr<Event> CudaDevice::make_event() { return std::make_unique<Moment>(ordinal_); }

std::byte* CudaDevice::allocate(std::size_t bytes) {
  if (bytes == 0) return nullptr;
  const Current current(ordinal_);
  void* memory = nullptr;
  const cudaError_t status = cudaMalloc(&memory, bytes);
  if (status == cudaErrorMemoryAllocation) {
    cudaGetLastError();
    std::size_t free = 0, total = 0;
    check(cudaMemGetInfo(&free, &total), "asking a GPU for its memory");
    fail(ErrorCode::out_of_memory, "{} bytes are needed on {}, {} of {} are free", bytes, name(), free, total);
  }
  check(status, "allocating memory");
  return static_cast<std::byte*>(memory);
}

void CudaDevice::release(std::byte* memory) noexcept { cudaFree(memory); }

void CudaDevice::copy(std::byte* to, const std::byte* from, std::size_t bytes, Stream& stream) {
  if (bytes > 0) check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDefault, handle_of(stream)), "copying");
}

void CudaDevice::clear(std::byte* memory, std::size_t bytes, Stream& stream) {
  if (bytes > 0) check(cudaMemsetAsync(memory, 0, bytes, handle_of(stream)), "clearing memory");
}

std::unique_ptr<Recording> CudaDevice::record(Stream& stream, const std::function<void()>& work) {
  const Current current(ordinal_);
  const OwnStream own(stream);  // the default stream cannot be recorded, and another's is not ours to record
  const cudaStream_t handle = handle_of(stream);
  check(cudaStreamBeginCapture(handle, cudaStreamCaptureModeThreadLocal), "beginning to record");
  cudaGraph_t graph = nullptr;
  try {
    work();
  } catch (...) {
    cudaStreamEndCapture(handle, &graph);
    if (graph) cudaGraphDestroy(graph);
    cudaGetLastError();
    throw;
  }
  check(cudaStreamEndCapture(handle, &graph), "recording");
  return std::make_unique<Graph>(ordinal_, graph);
}

bool CudaDevice::is_recorded(Stream& stream, const std::shared_ptr<const void>& needed) {
  cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
  cudaGraph_t graph = nullptr;
#if CUDART_VERSION >= 13000
  check(cudaStreamGetCaptureInfo(handle_of(stream), &status, nullptr, &graph, nullptr, nullptr, nullptr), "asking whether a stream is recorded");
#else
  check(cudaStreamGetCaptureInfo_v2(handle_of(stream), &status, nullptr, &graph, nullptr, nullptr), "asking whether a stream is recorded");
#endif
  if (status == cudaStreamCaptureStatusNone) return false;
  auto held = std::make_unique<std::shared_ptr<const void>>(needed);
  cudaUserObject_t object = nullptr;
  const auto let_go = [](void* p) { delete static_cast<std::shared_ptr<const void>*>(p); };
  check(cudaUserObjectCreate(&object, held.get(), let_go, 1, cudaUserObjectNoDestructorSync), "keeping a graph's memory");
  held.release();
  check(cudaGraphRetainUserObject(graph, object, 1, cudaGraphUserObjectMove), "keeping a graph's memory");
  return true;
}

}  // namespace cuda

std::shared_ptr<Device> open_cuda_device(int rank) {
  static std::mutex mutex;
  static std::vector<std::shared_ptr<cuda::CudaDevice>> devices;
  const std::lock_guard lock(mutex);
  if (devices.empty()) {
    int count = 0;
    const cudaError_t status = cudaGetDeviceCount(&count);
    cudaGetLastError();
    if (status == cudaErrorInsufficientDriver)
      fail(ErrorCode::unsupported, "no CUDA device: the NVIDIA driver is missing or older than CUDA {} needs; `tandem doctor` shows what was found", CUDART_VERSION / 1000);
    if (status != cudaSuccess || count == 0) fail(ErrorCode::unsupported, "no CUDA device: {}", status == cudaSuccess ? "this machine has none" : cudaGetErrorString(status));
    devices.resize(static_cast<std::size_t>(count));
  }
  const auto ordinal = static_cast<std::size_t>(rank) % devices.size();
  if (!devices[ordinal]) devices[ordinal] = std::make_shared<cuda::CudaDevice>(static_cast<int>(ordinal));
  return devices[ordinal];
}

int cuda_device_count() {
  int count = 0;
  const bool known = cudaGetDeviceCount(&count) == cudaSuccess;
  cudaGetLastError();
  return known ? count : 0;
}

bool built_with_cuda() { return true; }

}  // namespace tandem
