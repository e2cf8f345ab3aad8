#include <fmt/format.h>

#include <algorithm>
#include <new>
#include <thread>
#include <vector>

#include "core/check.h"
#include "core/stop.h"
#include "device/cuda/current.h"
#include "device/cuda/driver.h"
#include "device/cuda/frees.h"
#include "device/cuda/runtime.h"
#include "device/cuda/stopwatch.h"
#include "device/cuda/stream_gpu.h"
#include "device/cuda/trouble.h"

namespace tandem {
namespace cuda {
namespace {

class Moment final : public Event {
 public:
  explicit Moment(int ordinal) : ordinal_(ordinal) {
    const Current current(ordinal_);
    check(cudaEventCreateWithFlags(&event_, cudaEventDisableTiming), "making an event");
  }
  ~Moment() override {
    if (!is_lost(ordinal_)) cudaEventDestroy(event_);
  }
  void record(Stream& stream) override { check(cudaEventRecord(event_, handle_of(stream)), "recording an event"); }
  void wait(Stream& stream) override { check(cudaStreamWaitEvent(handle_of(stream), event_, 0), "waiting for an event"); }
  bool passed() override {
    const cudaError_t status = cudaEventQuery(event_);
    if (status != cudaErrorNotReady) check(status, "the work of a step");
    return status == cudaSuccess;
  }
  cudaEvent_t handle() const { return event_; }

 private:
  int ordinal_;
  cudaEvent_t event_ = nullptr;
};

// Of the last work of one who gives work to the GPU.
class End final : public Event {
 public:
  explicit End(int ordinal) : moment_(ordinal) { watch(ordinal, moment_.handle()); }
  ~End() override { unwatch(moment_.handle()); }
  void record(Stream& stream) override { moment_.record(stream); }
  void wait(Stream& stream) override { moment_.wait(stream); }
  bool passed() override { return moment_.passed(); }

 private:
  Moment moment_;
};

int attribute(cudaDeviceAttr which, int ordinal) {
  int value = 0;
  check(cudaDeviceGetAttribute(&value, which, ordinal), "asking a GPU what it can do");
  return value;
}

int sm_of(int ordinal) {
  return 10 * attribute(cudaDevAttrComputeCapabilityMajor, ordinal) + attribute(cudaDevAttrComputeCapabilityMinor, ordinal);
}

bool is_of_driver_compiler(cudaError_t status) {
  return status == cudaErrorUnsupportedPtxVersion || status == cudaErrorJitCompilerNotFound || status == cudaErrorJitCompilationDisabled ||
         status == cudaErrorInvalidPtx;
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
    if (static_cast<FaultKind>(kind) == FaultKind::division)
      fail(ErrorCode::invalid_argument, "integer division of {} by zero", found.index);
    fail(ErrorCode::invalid_argument, "{}: index {} is outside extent {}", kFaultingOps[kind], found.index, found.past - 1);
  }
}

// How the work ended. Polls, so that neither a kernel that never ends nor the driver can hold the caller past the deadline.
cudaError_t wait_for(int ordinal, cudaStream_t stream, Deadline deadline) {
  for (int spins = 0;; ++spins) {
    const cudaError_t status = cudaStreamQuery(stream);
    if (status != cudaErrorNotReady) return status;
    if (deadline.expired()) {
      const Error late(ErrorCode::timeout,
                       fmt::format("the GPU did not finish within {:.1f} s", std::chrono::duration<double>(deadline.limit()).count()));
      lose_until_done(ordinal, stream, late);
      throw late;
    }
    if (spins % 256 == 255 && StopScope::wanted()) throw Error(ErrorCode::interrupted, "interrupted");
    if (spins > 20000) std::this_thread::sleep_for(std::chrono::microseconds(50));
  }
}

}  // namespace

void finish(cudaStream_t stream, const char* what) {
  int ordinal = 0;
  check(cudaGetDevice(&ordinal), "asking for the current GPU");
  check(wait_for(ordinal, stream, Deadline::after(kStepDeadline)), what);
}

void check(cudaError_t status, const char* what) {
  if (status == cudaSuccess) return;
  cudaGetLastError();  // forgets what is not sticky
  int ordinal = 0;
  if (status == cudaErrorNoKernelImageForDevice && cudaGetDevice(&ordinal) == cudaSuccess)
    fail(ErrorCode::unsupported, "{}: {}", what, kernels_problem(sm_of(ordinal)));
  if (is_of_driver_compiler(status) && cudaGetDevice(&ordinal) == cudaSuccess)
    fail(ErrorCode::unsupported, "{}: {}", what, text_problem(sm_of(ordinal), cudaGetErrorString(status)));
  const ErrorCode code = status == cudaErrorMemoryAllocation ? ErrorCode::out_of_memory : ErrorCode::internal;
  const Error error(code, fmt::format("CUDA: {}: {} ({})", what, cudaGetErrorString(status), cudaGetErrorName(status)));
  if (!breaks_context(status)) throw error;
  cudaGetDevice(&ordinal);
  lose(ordinal, error);
  throw_if_lost(ordinal);
}

void free_host(void* memory) noexcept { free_when_idle(kAllGpus, memory, cudaFreeHost); }

void drop_when_idle(int ordinal, std::shared_ptr<const void> owner) noexcept {
  using Owner = std::shared_ptr<const void>;
  if (!owner) return;
  free_when_idle(ordinal, new Owner(std::move(owner)), [](void* kept) {
    delete static_cast<Owner*>(kept);
    return cudaSuccess;
  });
}

void free_device(void* memory) noexcept {
  const BesideRecordings allowed;
  cudaPointerAttributes found{};
  const bool known = memory && cudaPointerGetAttributes(&found, memory) == cudaSuccess && found.type == cudaMemoryTypeDevice;
  free_when_idle(known ? found.device : kAllGpus, memory, cudaFree);
}

CudaStream::CudaStream(std::shared_ptr<CudaDevice> device, int threads, bool urgent) : device_(std::move(device)), threads_(threads) {
  throw_if_lost(device_->ordinal());
  const Current current(device_->ordinal());
  faults_.reset(make_faults());
  int least = 0, greatest = 0;
  if (urgent) check(cudaDeviceGetStreamPriorityRange(&least, &greatest), "asking for priorities of streams");
  check(cudaStreamCreateWithPriority(&own_, cudaStreamNonBlocking, greatest), "making a stream");
  current_ = own_;
}

CudaStream::~CudaStream() {
  if (!device_->lost()) cudaStreamDestroy(own_);
}

void CudaStream::redirect(void* handle) {
  cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
  if (handle == cudaStreamLegacy || handle == cudaStreamPerThread) {  // of whatever GPU is the thread's current one
    int ordinal = -1;
    check(cudaGetDevice(&ordinal), "asking for the current GPU");
    if (ordinal != device_->ordinal())
      fail(ErrorCode::invalid_argument, "the default stream is of GPU {}, which is the thread's current one; the engine runs on GPU {}",
           ordinal, device_->ordinal());
    current_ = static_cast<cudaStream_t>(handle);
    return;
  }
  if (handle) check(cudaStreamIsCapturing(static_cast<cudaStream_t>(handle), &status), "looking at the stream that was given");
  if (handle) {
    const int ordinal = gpu_of_stream(static_cast<cudaStream_t>(handle), status != cudaStreamCaptureStatusNone);
    if (ordinal != device_->ordinal())
      fail(ErrorCode::invalid_argument, "the stream is of GPU {}, the engine runs on GPU {}", ordinal, device_->ordinal());
  }
  current_ = handle ? static_cast<cudaStream_t>(handle) : own_;
}

void CudaStream::failed(std::exception_ptr error) noexcept {
  const std::lock_guard lock(mutex_);
  if (!error_) error_ = std::move(error);
}

void CudaStream::wait(Deadline deadline) {
  const cudaError_t status = wait_for(device_->ordinal(), current_, deadline);
  const std::lock_guard lock(mutex_);
  if (std::exception_ptr error = std::exchange(error_, nullptr)) std::rethrow_exception(error);
  check(status, "the work of a step");
  throw_fault(faults_.get());
}

CudaDevice::CudaDevice(int ordinal) : ordinal_(ordinal) {
  sm_ = sm_of(ordinal);
  multiprocessors_ = attribute(cudaDevAttrMultiProcessorCount, ordinal);
  shared_bytes_ = attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin, ordinal);
  cudaDeviceProp properties;
  check(cudaGetDeviceProperties(&properties, ordinal), "asking a GPU for its name");
  product_ = properties.name;
  for (const char byte : properties.uuid.bytes) id_ += fmt::format("{:02x}", static_cast<unsigned char>(byte));
}

// As BesideRecordings too.
int CudaDevice::enter() {
  throw_if_lost(ordinal_);
  int before = 0;
  check(cudaGetDevice(&before), "asking for the current GPU");
  if (before != ordinal_) check(cudaSetDevice(ordinal_), "choosing a GPU");
  cudaStreamCaptureMode mode = cudaStreamCaptureModeRelaxed;
  check(cudaThreadExchangeStreamCaptureMode(&mode), "allowing work beside recordings");
  if (any_let_go_ && is_idle(ordinal_)) {
    any_let_go_ = false;
    std::vector<std::shared_ptr<const void>> let_go;
    const std::lock_guard lock(mutex_);
    let_go.swap(let_go_);
  }
  free_kept();
  return before << 8 | static_cast<int>(mode);
}

void CudaDevice::leave(int before) noexcept {
  auto mode = static_cast<cudaStreamCaptureMode>(before & 0xff);
  cudaThreadExchangeStreamCaptureMode(&mode);
  if (before >> 8 != ordinal_) cudaSetDevice(before >> 8);
}

bool CudaDevice::lost() const noexcept { return is_lost(ordinal_); }

// Where the GPU is lost already, that goes on until this work is done too.
void CudaDevice::keep_until_done(Stream& stream, std::shared_ptr<const void> needed) noexcept {
  const BesideRecordings allowed;
  lose_until_done(ordinal_, handle_of(stream), Error(ErrorCode::timeout, "the work of a context that is gone has not ended"));
  let_go_later(std::move(needed));
}

std::string CudaDevice::name() const { return fmt::format("{} (sm_{})", product_, sm_); }
std::string CudaDevice::target() const { return fmt::format("sm_{}", sm_); }

std::unique_ptr<Stream> CudaDevice::make_stream(int threads) { return std::make_unique<CudaStream>(shared_from_this(), threads); }

std::unique_ptr<Stream> CudaDevice::make_urgent_stream() { return std::make_unique<CudaStream>(shared_from_this(), 1, true); }

std::unique_ptr<Event> CudaDevice::make_event() { return std::make_unique<Moment>(ordinal_); }

std::unique_ptr<Event> CudaDevice::make_end_event() { return std::make_unique<End>(ordinal_); }

std::unique_ptr<Stopwatch> CudaDevice::make_stopwatch() { return cuda::make_stopwatch(); }

// In a recording it becomes a step of its own, so that replays record the event too.
void CudaDevice::record_event(void* event, Stream& stream) {
  const unsigned flags = is_recorded(stream) ? cudaEventRecordExternal : cudaEventRecordDefault;
  check(cudaEventRecordWithFlags(static_cast<cudaEvent_t>(event), handle_of(stream), flags), "recording the caller's event");
}

namespace {

struct MemoryHere {
  std::size_t free = 0, total = 0;
};

// Of the thread's current GPU.
MemoryHere memory_here() {
  MemoryHere here;
  check(cudaMemGetInfo(&here.free, &here.total), "asking a GPU for its memory");
  return here;
}

}  // namespace

std::byte* CudaDevice::allocate(std::size_t bytes) {
  if (bytes == 0) return nullptr;
  const Current current(ordinal_);
  void* memory = nullptr;
  cudaError_t status = cudaMalloc(&memory, bytes);
  if (status == cudaErrorMemoryAllocation && any_kept() && becomes_idle(ordinal_, Deadline::after(kStepDeadline))) {
    free_kept();
    status = cudaMalloc(&memory, bytes);
  }
  if (status == cudaErrorMemoryAllocation) {
    cudaGetLastError();
    const auto [free, total] = memory_here();
    fail(ErrorCode::out_of_memory, "{} bytes are needed on {}, {} of {} are free", bytes, name(), free, total);
  }
  check(status, "allocating memory");
  return static_cast<std::byte*>(memory);
}

void CudaDevice::release(std::byte* memory) noexcept { free_when_idle(ordinal_, memory, cudaFree); }

std::size_t CudaDevice::free_bytes() {
  const Current current(ordinal_);
  return memory_here().free;
}

std::byte* CudaDevice::allocate_pinned(std::size_t bytes) {
  if (bytes == 0) return nullptr;
  const Current current(ordinal_);
  void* memory = nullptr;
  const cudaError_t status = cudaHostAlloc(&memory, bytes, cudaHostAllocPortable);
  if (status == cudaErrorMemoryAllocation) {
    cudaGetLastError();
    fail(ErrorCode::out_of_memory, "{} bytes of the host's memory are needed that {} can fetch by itself, there are not so many", bytes,
         name());
  }
  check(status, "pinning memory of the host");
  return static_cast<std::byte*>(memory);
}

void CudaDevice::copy(std::byte* to, const std::byte* from, std::size_t bytes, Stream& stream) {
  if (bytes > 0) check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDefault, handle_of(stream)), "copying");
}

void CudaDevice::clear(std::byte* memory, std::size_t bytes, Stream& stream) {
  if (bytes > 0) check(cudaMemsetAsync(memory, 0, bytes, handle_of(stream)), "clearing memory");
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
      fail(ErrorCode::unsupported, "no CUDA device: {}; `tandem doctor` shows what was found", cuda::driver_problem(CUDART_VERSION));
    if (status != cudaSuccess || count == 0)
      fail(ErrorCode::unsupported, "no CUDA device: {}", status == cudaSuccess ? "this machine has none" : cudaGetErrorString(status));
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
