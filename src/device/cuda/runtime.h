// The CUDA device as files beside CUDA see it: checked calls, streams, what the device can do.
#pragma once

#include <cuda_runtime.h>

#include <atomic>
#include <exception>
#include <memory>
#include <mutex>
#include <vector>

#include "device/cuda/fault.h"
#include "device/device.h"

namespace tandem::cuda {

// Throws Error(out_of_memory | unsupported | internal) saying what was tried and what CUDA says.
void check(cudaError_t status, const char* what);
// The error of the launch just done, if any.
inline void check_launch(const char* kernel) { check(cudaGetLastError(), kernel); }
// Until what a stream of the thread's current GPU was given is done; `what` that is, for the error of work that failed. Throws
// Error(timeout) after 30 s, and asks StopScope.
void finish(cudaStream_t stream, const char* what);

// Memory of the host that a GPU may use, and memory of a GPU: as free_when_idle() does.
void free_host(void* memory) noexcept;
void free_device(void* memory) noexcept;
// The same for what else a GPU may use: ends `owner`, whose destructor must throw nothing, maybe later and in another thread. A null one is
// nothing to do.
void drop_when_idle(int ordinal, std::shared_ptr<const void> owner) noexcept;

class CudaDevice;

class CudaStream final : public Stream {
 public:
  CudaStream(std::shared_ptr<CudaDevice> device, int threads, bool urgent = false);
  ~CudaStream() override;
  void wait(Deadline deadline) override;
  void redirect(void* handle) override;

  void* native() const override { return current_; }
  cudaStream_t handle() const { return current_; }
  CudaDevice& device() const { return *device_; }
  // What host code given to the stream may use.
  int threads() const { return threads_; }
  // Keeps the first exception of host code in the stream, for wait() to throw.
  void failed(std::exception_ptr error) noexcept;
  // Where kernels in the stream report an index outside its extent, for wait() to throw Error(invalid_argument) that names the op.
  Fault* fault_word(FaultKind kind) const { return faults_.get() + static_cast<int>(kind); }

 private:
  struct FreeHost {
    void operator()(Fault* memory) const { free_host(memory); }
  };

  std::shared_ptr<CudaDevice> device_;
  cudaStream_t own_ = nullptr, current_ = nullptr;
  int threads_;
  std::mutex mutex_;
  std::exception_ptr error_;
  std::unique_ptr<Fault[], FreeHost> faults_;  // in memory of the host that the GPU writes
};

// One GPU of this process. Its context is made on first use.
class CudaDevice final : public Device, public std::enable_shared_from_this<CudaDevice> {
 public:
  explicit CudaDevice(int ordinal);

  std::string_view kind() const override { return "cuda"; }
  std::string name() const override;
  std::string id() const override { return id_; }
  std::string target() const override;
  bool is_host() const override { return false; }
  int sm() const override { return sm_; }
  int enter() override;
  void leave(int before) noexcept override;
  std::unique_ptr<Stream> make_stream(int threads) override;
  std::unique_ptr<Stream> make_urgent_stream() override;
  std::unique_ptr<Event> make_event() override;
  std::unique_ptr<Event> make_end_event() override;
  std::unique_ptr<Stopwatch> make_stopwatch() override;
  void record_event(void* event, Stream& stream) override;
  void begin_range(const char* name) noexcept override;
  void end_range() noexcept override;
  bool lost() const noexcept override;
  void keep_until_done(Stream& stream, std::shared_ptr<const void> needed) noexcept override;
  std::byte* allocate(std::size_t bytes) override;
  void release(std::byte* memory) noexcept override;
  std::size_t free_bytes() override;
  std::byte* allocate_pinned(std::size_t bytes) override;
  void release_pinned(std::byte* memory) noexcept override { free_host(memory); }
  void copy(std::byte* to, const std::byte* from, std::size_t bytes, Stream& stream) override;
  void clear(std::byte* memory, std::size_t bytes, Stream& stream) override;
  std::unique_ptr<Recording> record(Stream& stream, const std::function<void()>& work) override;
  bool is_recorded(Stream& stream) override;
  void keep_with_recording(Stream& stream, std::shared_ptr<const void> needed) override;
  // Lets go of it at the next enter(): for threads that may not call CUDA.
  void let_go_later(std::shared_ptr<const void> needed);

  int ordinal() const { return ordinal_; }
  int multiprocessors() const { return multiprocessors_; }
  int shared_bytes() const { return shared_bytes_; }  // that a block may ask for

 private:
  std::mutex mutex_;
  std::vector<std::shared_ptr<const void>> let_go_;
  std::atomic<bool> any_let_go_{false};
  int ordinal_;
  int sm_ = 0, multiprocessors_ = 0, shared_bytes_ = 0;
  std::string product_, id_;
};

// Of a kernel's RunArgs and PrepareArgs.
inline cudaStream_t handle_of(Stream& stream) { return static_cast<CudaStream&>(stream).handle(); }
inline Fault* fault_word_of(Stream& stream, FaultKind kind) { return static_cast<CudaStream&>(stream).fault_word(kind); }

// This thread may allocate and free while somebody records a stream in CUDA's strictest mode; that recording does not see it.
class BesideRecordings {
 public:
  BesideRecordings() { cudaThreadExchangeStreamCaptureMode(&mode_); }
  ~BesideRecordings() { cudaThreadExchangeStreamCaptureMode(&mode_); }
  BesideRecordings(const BesideRecordings&) = delete;

 private:
  cudaStreamCaptureMode mode_ = cudaStreamCaptureModeRelaxed;
};

}  // namespace tandem::cuda
