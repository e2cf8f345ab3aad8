// Aside: calls of NCCL that may never return, in threads of their own.
#pragma once

#include <chrono>
#include <functional>
#include <future>
#include <memory>
#include <mutex>
#include <thread>

namespace tandem::nccl {

// Thread-safe. Where the process ends while some are running, its end waits a short time for them: NCCL and CUDA must not be taken apart
// under a thread that uses them.
class Aside {
 public:
  static std::shared_ptr<Aside> begin(std::function<void()> work);
  ~Aside();
  Aside(const Aside&) = delete;

  // Whether the work is done and its thread gone, after at most `limit`.
  bool wait(std::chrono::nanoseconds limit);

 private:
  Aside() = default;

  std::promise<void> promise_;
  std::shared_future<void> end_ = promise_.get_future();
  std::once_flag joined_;
  std::thread thread_;
};

}  // namespace tandem::nccl
