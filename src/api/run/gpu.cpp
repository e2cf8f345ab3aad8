#include "tandem/gpu.h"

#include <mutex>

#include "core/check.h"
#include "core/seconds.h"
#include "device/lost.h"
#include "device/upload.h"

namespace tandem {

struct Gpu::Data {
  std::shared_ptr<Device> device;
  std::unique_ptr<Stream> stream;  // stands for the caller's streams, one at a time
  std::unique_ptr<Event> event;
  std::mutex mutex;

  template <typename Work>
  void on(void* handle, const Work& work) {
    const OnDevice on_device(*device);
    stream->redirect(handle ? handle : default_stream());
    work();
  }
};

int gpu_count() { return cuda_device_count(); }
bool gpu_lost() noexcept { return any_gpu_lost(); }

Gpu::Gpu(int number) : data_(std::make_shared<Data>()) {
  const int count = cuda_device_count();
  if (count > 0 && (number < 0 || number >= count)) fail(ErrorCode::unsupported, "there is no GPU {}: this process has {}", number, count);
  data_->device = open_device("cuda", number);
  const OnDevice on_device(*data_->device);
  data_->stream = data_->device->make_stream(1);
  data_->event = data_->device->make_event();
}

int Gpu::number() const { return gpu_number(*data_->device); }

std::shared_ptr<std::byte> Gpu::allocate(std::size_t bytes) const {
  return {data_->device->allocate(bytes), [device = data_->device](std::byte* memory) {
            if (memory) device->release(memory);
          }};
}

void Gpu::copy(void* to, const void* from, std::size_t bytes, void* stream) const {
  const std::lock_guard lock(data_->mutex);
  data_->on(stream, [&] {
    data_->device->copy(static_cast<std::byte*>(to), static_cast<const std::byte*>(from), bytes, *data_->stream);
    if (bytes > 0 && is_read_late_by_cuda(from) && !data_->device->is_recorded(*data_->stream))
      data_->stream->wait(Deadline::after(kStepDeadline));
  });
}

void Gpu::order(void* earlier, void* later) const {
  if ((earlier ? earlier : default_stream()) == (later ? later : default_stream())) return;
  const std::lock_guard lock(data_->mutex);
  data_->on(earlier, [&] { data_->event->record(*data_->stream); });
  data_->on(later, [&] { data_->event->wait(*data_->stream); });
}

void Gpu::synchronize(void* stream, double deadline_s) const {
  const std::lock_guard lock(data_->mutex);
  data_->on(stream, [&] { data_->stream->wait(Deadline::after(nanoseconds("wait", deadline_s))); });
}

}  // namespace tandem
