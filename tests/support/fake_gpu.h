// A device that says it is a GPU and computes as the CPU does: for what ranks decide by what their GPUs say of themselves.
#pragma once

#include <string>

#include "device/device.h"

namespace tandem::test {

class FakeGpu final : public Device {
 public:
  explicit FakeGpu(std::string id) : id_(std::move(id)) {}

  std::string_view kind() const override { return "cuda"; }
  std::string name() const override { return "a GPU of a test"; }
  std::string id() const override { return id_; }
  bool is_host() const override { return false; }
  std::unique_ptr<Stream> make_stream(int threads) override { return cpu_->make_stream(threads); }
  std::unique_ptr<Event> make_event() override { return cpu_->make_event(); }
  std::unique_ptr<Stopwatch> make_stopwatch() override { return cpu_->make_stopwatch(); }
  void record_event(void* event, Stream& stream) override { cpu_->record_event(event, stream); }
  void keep_until_done(Stream& stream, std::shared_ptr<const void> needed) noexcept override { cpu_->keep_until_done(stream, needed); }
  std::byte* allocate(std::size_t bytes) override { return cpu_->allocate(bytes); }
  void release(std::byte* memory) noexcept override { cpu_->release(memory); }
  std::size_t free_bytes() override { return cpu_->free_bytes(); }
  std::byte* allocate_pinned(std::size_t bytes) override { return cpu_->allocate_pinned(bytes); }
  void release_pinned(std::byte* memory) noexcept override { cpu_->release_pinned(memory); }
  void copy(std::byte* to, const std::byte* from, std::size_t bytes, Stream& stream) override { cpu_->copy(to, from, bytes, stream); }
  void clear(std::byte* memory, std::size_t bytes, Stream& stream) override { cpu_->clear(memory, bytes, stream); }
  std::unique_ptr<Recording> record(Stream& stream, const std::function<void()>& work) override { return cpu_->record(stream, work); }
  bool is_recorded(Stream& stream) override { return cpu_->is_recorded(stream); }
  void keep_with_recording(Stream& stream, std::shared_ptr<const void> needed) override { cpu_->keep_with_recording(stream, needed); }

 private:
  std::shared_ptr<Device> cpu_ = cpu_device();
  std::string id_;
};

}  // namespace tandem::test
