// Aside: calls of NCCL that may never return, in threads of their own.
#pragma once

#include <chrono>
#include <functional>
#include <future>
#include <memory>
#include <mutex>
#include <thread>

namespace tandem::nccl {

// What the end of the process waits for work that may be stuck, and for work that only is slow: taking a communicator apart takes seconds
// where other processes use the GPUs.
inline constexpr std::chrono::seconds kEndOfStuck{10}, kEndOfSlow{20};

// Thread-safe. Where the process ends while some are running, its end waits for them: NCCL and CUDA must not be taken apart under a thread
// that uses them. What then still runs is stuck in a wait of NCCL's for another rank, and calls nothing.
class Aside {
 public:
  // `at_the_end`: at most so long does the end of the process wait. May be called while the process ends.
  static std::shared_ptr<Aside> begin(std::function<void()> work, std::chrono::nanoseconds at_the_end = kEndOfStuck);
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
