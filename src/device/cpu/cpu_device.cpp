#include <cstdlib>
#include <cstring>
#include <limits>

#include "core/check.h"
#include "device/cpu/thread_pool.h"
#include "device/device.h"

namespace tandem {
namespace {

// Work of the CPU is done when it was given.
class Past final : public Event {
 public:
  void record(Stream&) override {}
  void wait(Stream&) override {}
  bool passed() override { return true; }
};

class Clock final : public Stopwatch {
 public:
  void mark(Stream&) override { marks_.push_back(monotonic_ns()); }
  std::vector<std::int64_t> read(Deadline) override { return std::move(marks_); }

 private:
  std::vector<std::int64_t> marks_;
};

class CpuDevice final : public Device {
 public:
  std::string_view kind() const override { return "cpu"; }
  std::string id() const override { return "cpu"; }
  std::string name() const override { return "CPU"; }
  bool is_host() const override { return true; }
  std::unique_ptr<Stream> make_stream(int threads) override { return std::make_unique<ThreadPool>(threads); }

  std::unique_ptr<Event> make_event() override { return std::make_unique<Past>(); }
  std::unique_ptr<Stopwatch> make_stopwatch() override { return std::make_unique<Clock>(); }
  void record_event(void*, Stream&) override {
    fail(ErrorCode::unsupported, "ranks of the CPU have no events: their inputs are read when the call returns");
  }

  std::byte* allocate(std::size_t bytes) override {
    if (bytes == 0) return nullptr;
    void* memory = std::aligned_alloc(kDeviceAlignment, aligned_size(bytes));
    if (!memory) fail(ErrorCode::out_of_memory, "no memory for {} bytes", bytes);
    return static_cast<std::byte*>(memory);
  }

  void release(std::byte* memory) noexcept override { std::free(memory); }
  std::size_t free_bytes() override { return std::numeric_limits<std::size_t>::max(); }
  std::byte* allocate_pinned(std::size_t bytes) override { return allocate(bytes); }
  void release_pinned(std::byte* memory) noexcept override { release(memory); }

  void copy(std::byte* to, const std::byte* from, std::size_t bytes, Stream&) override {
    if (bytes > 0) std::memcpy(to, from, bytes);
  }

  void clear(std::byte* memory, std::size_t bytes, Stream&) override {
    if (bytes > 0) std::memset(memory, 0, bytes);
  }

  std::unique_ptr<Recording> record(Stream&, const std::function<void()>&) override { return nullptr; }
  bool is_recorded(Stream&) override { return false; }
  void keep_with_recording(Stream&, std::shared_ptr<const void>) override {}
  void keep_until_done(Stream&, std::shared_ptr<const void>) noexcept override {}
};

}  // namespace

std::shared_ptr<Device> cpu_device() {
  static const auto device = std::make_shared<CpuDevice>();
  return device;
}

}  // namespace tandem
