// Device: what one rank computes on; Stream: its work there, in order. One folder per kind: cpu/, cuda/.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "tandem/deadline.h"
#include "tandem/device_memory.h"
#include "tandem/error.h"

namespace tandem {

// To kDeviceAlignment, as everything that a device allocates.
inline std::size_t aligned_size(std::size_t bytes) { return (bytes + kDeviceAlignment - 1) / kDeviceAlignment * kDeviceAlignment; }

// Work of one rank, done in the order in which it was given. Used by one thread at a time.
class Stream {
 public:
  virtual ~Stream() = default;
  // Until all of it is done. Throws Error(timeout) once the deadline has passed, and the error of work that failed. Asks StopScope.
  virtual void wait(Deadline deadline) = 0;
  // From now on work goes to a stream of the caller's (a cudaStream_t, borrowed); null: to its own again. Throws Error(unsupported) where
  // the device has none, Error(invalid_argument) for a stream of another device.
  virtual void redirect(void* handle) = 0;
  // What work goes to at present (a cudaStream_t); null where the device has no such thing.
  virtual void* native() const { return nullptr; }
};

// Work goes to the stream's own again for a scope.
class OwnStream {
 public:
  explicit OwnStream(Stream& stream) : stream_(stream), before_(stream.native()) { stream.redirect(nullptr); }
  ~OwnStream() {
    try {
      stream_.redirect(before_);
    } catch (const Error&) {  // it was taken before
    }
  }
  OwnStream(const OwnStream&) = delete;

 private:
  Stream& stream_;
  void* before_;
};

// Work that was recorded once and can be given to its device again at a small cost, with the same addresses.
class Recording {
 public:
  virtual ~Recording() = default;
  virtual void launch(Stream& stream) = 0;
};

// A moment in the work of a stream, for which another can wait.
class Event {
 public:
  virtual ~Event() = default;
  virtual void record(Stream& stream) = 0;
  // What is given to `stream` from now on starts after the moment recorded last; at once where none was.
  virtual void wait(Stream& stream) = 0;
  // Whether the moment recorded last is over; true where none was. Throws the error of work that failed.
  virtual bool passed() = 0;
};

// Notes moments in the work of a stream, by the device's own clock.
class Stopwatch {
 public:
  virtual ~Stopwatch() = default;
  // After all that was given to the stream before.
  virtual void mark(Stream& stream) = 0;
  // Waits until the work marked is done, as Stream::wait() does; each mark in nanoseconds, comparable with monotonic_ns().
  virtual std::vector<std::int64_t> read(Deadline deadline) = 0;
};

// Outlives everything that it made. Thread-safe.
class Device {
 public:
  virtual ~Device() = default;
  virtual std::string_view kind() const = 0;  // "cpu", "cuda": Plan::device and KernelDef::device
  // What it is, for people: "NVIDIA H200 (sm_90)".
  virtual std::string name() const = 0;
  // The same for the same piece of hardware in all processes of a host, and for no other one.
  virtual std::string id() const = 0;
  // What engines are built for: "cpu", "sm_90".
  virtual std::string target() const { return std::string(kind()); }
  // Whether its kernels work on the memory of this process, in the caller's thread.
  virtual bool is_host() const = 0;
  // Of a GPU: 90 for compute capability 9.0.
  virtual int sm() const { return 0; }
  // `threads`: that host code given to the stream may use.
  virtual std::unique_ptr<Stream> make_stream(int threads) = 0;
  // Its work goes before that of other streams, where the device can choose.
  virtual std::unique_ptr<Stream> make_urgent_stream() { return make_stream(1); }
  virtual std::unique_ptr<Event> make_event() = 0;
  // One that its owner records behind all that it gives to the device, outside recordings: while such work goes on, memory is given back
  // late rather than waited for without a deadline.
  virtual std::unique_ptr<Event> make_end_event() { return make_event(); }
  virtual std::unique_ptr<Stopwatch> make_stopwatch() = 0;
  // Records an event of the caller's (a cudaEvent_t of this device, borrowed), also in recordings. Error(unsupported) where there are none.
  virtual void record_event(void* event, Stream& stream) = 0;
  // A named range for the tools that look at programs from outside (NVTX), around what this thread does until end_range().
  virtual void begin_range(const char* name) noexcept { static_cast<void>(name); }
  virtual void end_range() noexcept {}
  // Makes it the calling thread's current one and gives what was; leave() undoes that. By OnDevice. Throws the error by which the device
  // was lost to this process, if it was.
  virtual int enter() { return 0; }
  virtual void leave(int before) noexcept { static_cast<void>(before); }
  // Whether it was lost to this process: then nothing may wait for its work, and what that uses must be kept.
  virtual bool lost() const noexcept { return false; }
  // Of a device that is lost: it stays so until all that `stream` was given is done; a later enter() then lets go of `needed`. Never waits.
  virtual void keep_until_done(Stream& stream, std::shared_ptr<const void> needed) noexcept = 0;
  // Aligned to kDeviceAlignment, contents undefined; null for no bytes. Throws Error(out_of_memory) with the bytes needed and free.
  virtual std::byte* allocate(std::size_t bytes) = 0;
  virtual void release(std::byte* memory) noexcept = 0;
  // Bytes that allocate() could give at present; the largest number where nobody knows.
  virtual std::size_t free_bytes() = 0;
  // Memory of the host that the device fetches by itself, aligned as allocate() does: copies from it go on when copy() has returned, and it
  // stays valid until they are done. Null for no bytes. Throws Error(out_of_memory).
  virtual std::byte* allocate_pinned(std::size_t bytes) = 0;
  virtual void release_pinned(std::byte* memory) noexcept = 0;
  // In the order of the stream. Either side may be memory of the host: such memory may be used again once this returns if it is read and
  // not pinned, and after Stream::wait() else.
  virtual void copy(std::byte* to, const std::byte* from, std::size_t bytes, Stream& stream) = 0;
  // In the order of the stream.
  virtual void clear(std::byte* memory, std::size_t bytes, Stream& stream) = 0;
  // Calls `work`, which gives its work to `stream`, and records that instead of doing it; null where the device cannot record.
  virtual std::unique_ptr<Recording> record(Stream& stream, const std::function<void()>& work) = 0;
  // Whether the stream's owner records what is given to it.
  virtual bool is_recorded(Stream& stream) = 0;
  // What the owner of such a stream records keeps `needed` alive.
  virtual void keep_with_recording(Stream& stream, std::shared_ptr<const void> needed) = 0;
};

// Whether kernels of a GPU may start before the one ahead of them has ended.
inline bool can_start_early(const Device& device) { return device.sm() >= 90; }

// The device is the calling thread's current one for a scope: libraries and launches that do not name a device go there.
class OnDevice {
 public:
  explicit OnDevice(Device& device) : device_(device), before_(device.enter()) {}
  ~OnDevice() { device_.leave(before_); }
  OnDevice(const OnDevice&) = delete;

 private:
  Device& device_;
  int before_;
};

// Memory of a device, released with its owner, or borrowed.
class DeviceMemory {
 public:
  DeviceMemory() = default;
  DeviceMemory(std::shared_ptr<Device> device, std::size_t bytes)
      : device_(std::move(device)), bytes_(bytes), data_(device_->allocate(bytes)) {}
  // Of an allocator of the caller's; null: the device's. Throws Error(out_of_memory) where it has none, Error(invalid_argument) where what
  // it gives is not aligned. `stream` is kept to release it.
  DeviceMemory(std::shared_ptr<Device> device, std::shared_ptr<DeviceAllocator> allocator, std::shared_ptr<Stream> stream,
               std::size_t bytes);
  // Of the caller's, who keeps it.
  static DeviceMemory borrowed(std::byte* data, std::size_t bytes);
  ~DeviceMemory();
  DeviceMemory(DeviceMemory&& other) noexcept { *this = std::move(other); }
  DeviceMemory& operator=(DeviceMemory&& other) noexcept;

  std::byte* data() const { return data_; }
  std::size_t bytes() const { return bytes_; }

 private:
  std::shared_ptr<Device> device_;
  std::shared_ptr<DeviceAllocator> allocator_;
  std::shared_ptr<Stream> stream_;
  std::size_t bytes_ = 0;
  std::byte* data_ = nullptr;
};

// Pinned memory of the host, released with its owner.
class PinnedMemory {
 public:
  PinnedMemory() = default;
  PinnedMemory(std::shared_ptr<Device> device, std::size_t bytes)
      : device_(std::move(device)), bytes_(bytes), data_(device_->allocate_pinned(bytes)) {}
  ~PinnedMemory() {
    if (data_) device_->release_pinned(data_);
  }
  PinnedMemory(PinnedMemory&& other) noexcept { *this = std::move(other); }
  PinnedMemory& operator=(PinnedMemory&& other) noexcept {
    std::swap(device_, other.device_);
    std::swap(bytes_, other.bytes_);
    std::swap(data_, other.data_);
    return *this;
  }

  std::byte* data() const { return data_; }
  std::size_t bytes() const { return bytes_; }

 private:
  std::shared_ptr<Device> device_;
  std::size_t bytes_ = 0;
  std::byte* data_ = nullptr;
};

std::shared_ptr<Device> cpu_device();
// The device of this kind that belongs to a rank: where there are several, they are handed out in turn. Throws Error(unsupported)
// where the program has no such kind, or the machine none of it, saying why and what would help.
std::shared_ptr<Device> open_device(std::string_view kind, int rank);
// The kinds that this program was built with: "cpu", "cuda".
bool has_device_kind(std::string_view kind);

// Of device/cuda, or of its stand-in in programs without it.
std::shared_ptr<Device> open_cuda_device(int rank);
// Of this machine; 0 without a driver.
int cuda_device_count();
bool built_with_cuda();

// What CUDA found on this machine, for people. Nothing is found by programs without it.
struct CudaReport {
  struct Library {
    std::string name, purpose, path, version;
    std::string how_to_get;  // where path is empty
  };
  std::string problem;  // why there is no GPU
  std::vector<Library> libraries;
  std::string looked_in;  // for the libraries
};
CudaReport report_cuda();

}  // namespace tandem
